//! Recipes.

use lfsbuild::recipe::Recipe;

/// The bytes are a recipe's text.
pub fn feed(data: &[u8]) {
    if let Err(error) = Recipe::parse("fuzzed.yaml", data) {
        assert!(!error.to_string().is_empty());
    }
}

/// Two of ours.
pub fn seeds() -> Vec<Vec<u8>> {
    let ours: [&[u8]; 2] =
        [include_bytes!("../../configs/recipes/bash.yaml"), include_bytes!("../../configs/recipes/gcc.yaml")];
    ours.map(<[u8]>::to_vec).to_vec()
}
