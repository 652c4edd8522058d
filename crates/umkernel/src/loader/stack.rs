//! The first stack of a program: arguments, environment, auxiliary vector (System V ABI, `getauxval(3)`).

use super::Strings;
use crate::bail;
use crate::errno::Result;
use alloc::vec::Vec;

/// Longest single argument or environment string, with its NUL (`MAX_ARG_STRLEN`).
pub const MAX_ARG_STRLEN: usize = 32 * 4096;
/// Most bytes that arguments and environment may always take (`ARG_MAX`).
const ARG_MIN: u64 = 131_072;

/// `AT_*` of `elf.h`.
pub mod at {
    #![allow(missing_docs, reason = "the names of getauxval(3)")]
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// Checks that arguments and environment fit (`execve(2)`: a quarter of the stack limit, at most 6 MiB).
pub fn check_size(strings: &Strings, stack_limit: u64) -> Result<()> {
    let all = || strings.args.iter().chain(&strings.env);
    if all().any(|s| s.len() >= MAX_ARG_STRLEN) {
        bail!(E2BIG, "one string is too long");
    }
    let total: u64 = all().map(|s| s.len() as u64 + 1 + 8).sum();
    if total > (stack_limit / 4).clamp(ARG_MIN, 6 << 20) {
        bail!(E2BIG);
    }
    Ok(())
}

/// The stack's content, ready to be written, and where its parts lie.
pub struct StackPlan {
    /// What the stack pointer starts with; the bytes go there.
    pub sp: u64,
    /// From the stack pointer up to the stack's top.
    pub bytes: Vec<u8>,
    /// The arguments' strings (start, end).
    pub args: (u64, u64),
    /// The environment's strings (start, end).
    pub env: (u64, u64),
    /// The auxiliary vector, with addresses filled in.
    pub auxv: Vec<(u64, u64)>,
}

impl StackPlan {
    /// Lays out the stack that ends at `top`. `auxv` gets `AT_EXECFN`, `AT_RANDOM`, `AT_PLATFORM` and its end added.
    pub fn new(top: u64, strings: &Strings, path: &[u8], auxv: &[(u64, u64)]) -> StackPlan {
        // From the top down: a null word, the path, environment, arguments, platform name, random bytes, then the vectors.
        let mut area = Vec::new();
        let mut push = |s: &[u8]| {
            let at = area.len();
            area.extend_from_slice(s);
            area.push(0);
            at
        };
        let arg_at: Vec<usize> = strings.args.iter().map(|s| push(s)).collect();
        let env_at: Vec<usize> = strings.env.iter().map(|s| push(s)).collect();
        let path_at = push(path);
        let env_end = path_at;
        area.extend_from_slice(&[0; 8]);
        let area_base = (top - area.len() as u64) & !15;
        let pad_top = (top - area_base) as usize - area.len();

        let platform = b"x86_64\0\0";
        let mut random = [0; 16];
        crate::host::getrandom(&mut random);
        let platform_base = area_base - platform.len() as u64;
        let random_base = platform_base - random.len() as u64;

        let mut auxv = auxv.to_vec();
        auxv.extend([
            (at::RANDOM, random_base),
            (at::EXECFN, area_base + path_at as u64),
            (at::PLATFORM, platform_base),
            (at::NULL, 0),
        ]);
        let mut words = alloc::vec![strings.args.len() as u64];
        words.extend(arg_at.iter().map(|&i| area_base + i as u64));
        words.push(0);
        words.extend(env_at.iter().map(|&i| area_base + i as u64));
        words.push(0);
        words.extend(auxv.iter().flat_map(|&(key, value)| [key, value]));
        let sp = (random_base - words.len() as u64 * 8) & !15;
        let pad = (random_base - sp) as usize - words.len() * 8;

        let mut bytes = Vec::with_capacity((top - sp) as usize);
        words.iter().for_each(|w| bytes.extend_from_slice(&w.to_le_bytes()));
        bytes.resize(bytes.len() + pad, 0);
        bytes.extend_from_slice(&random);
        bytes.extend_from_slice(platform);
        let area_len = area.len();
        bytes.extend_from_slice(&area);
        bytes.resize(bytes.len() + pad_top, 0);
        debug_assert_eq!(bytes.len() as u64, top - sp, "the stack ends at its top ({area_len} bytes of strings)");
        let env_start = area_base + env_at.first().copied().unwrap_or(env_end) as u64;
        StackPlan { sp, bytes, args: (area_base, env_start), env: (env_start, area_base + env_end as u64), auxv }
    }
}

#[cfg(test)]
#[cfg(feature = "ptrace")]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn vectors_lead_to_their_strings() {
        let strings = Strings { args: vec![b"ls".to_vec(), b"-l".to_vec()], env: vec![b"A=1".to_vec()] };
        let top = 0x7000_0000_0000;
        let plan = StackPlan::new(top, &strings, b"/bin/ls", &[(at::PAGESZ, 4096)]);
        assert_eq!(plan.sp % 16, 0);
        assert_eq!(plan.sp + plan.bytes.len() as u64, top);
        let word = |i: usize| u64::from_le_bytes(plan.bytes[i * 8..i * 8 + 8].try_into().unwrap());
        let string = |addr: u64| {
            let at = (addr - plan.sp) as usize;
            let len = plan.bytes[at..].iter().position(|&b| b == 0).unwrap();
            plan.bytes[at..at + len].to_vec()
        };
        assert_eq!(word(0), 2);
        assert_eq!(string(word(1)), b"ls");
        assert_eq!(string(word(2)), b"-l");
        assert_eq!((word(3), word(5)), (0, 0));
        assert_eq!(string(word(4)), b"A=1");
        assert_eq!((word(6), word(7)), (at::PAGESZ, 4096));
        let execfn = plan.auxv.iter().find(|(k, _)| *k == at::EXECFN).unwrap().1;
        assert_eq!(string(execfn), b"/bin/ls");
        assert_eq!(plan.args.1, plan.env.0);
    }

    #[test]
    fn too_much_is_refused() {
        let strings = Strings { args: vec![vec![b'x'; MAX_ARG_STRLEN]], env: vec![] };
        assert_eq!(check_size(&strings, 8 << 20).unwrap_err(), crate::Errno::E2BIG);
        let strings = Strings { args: vec![vec![b'x'; 100_000]; 30], env: vec![] };
        assert_eq!(check_size(&strings, 8 << 20).unwrap_err(), crate::Errno::E2BIG);
        assert!(check_size(&strings, 64 << 20).is_ok());
    }
}
