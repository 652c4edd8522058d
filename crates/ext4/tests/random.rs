//! Random operations, checked against a model, then by e2fsck.
#![allow(clippy::unwrap_used)]

mod common;

use common::model::{Model, Op};
use common::*;
use ext4::mkfs::{FsType, Options, format};
use proptest::prelude::*;
use std::path::Path;

fn run_ops(image: &Path, ops: &[Op], from: Option<Model>) -> Model {
    let mut fs = mount(image);
    let mut m = from.unwrap_or_else(|| {
        let mut m = Model::new();
        m.adopt_lost_found(&mut fs);
        m
    });
    if m.nodes.len() == 2 {
        let root = m.nodes.get_mut(&2).unwrap();
        let a = fs.attr(2).unwrap();
        (root.mode, root.uid) = (a.mode, a.uid);
        let lf = fs.lookup(2, b"lost+found").unwrap();
        let a = fs.attr(lf).unwrap();
        let node = m.nodes.get_mut(&lf).unwrap();
        (node.mode, node.uid) = (a.mode, a.uid);
    }
    for op in ops {
        m.apply(&mut fs, *op);
    }
    m.check(&mut fs);
    fs.unmount().unwrap();
    fsck_worked(image);
    let mut fs = mount_ro(image);
    m.check(&mut fs);
    m
}

fn ops(n: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(any::<Op>(), 1..n)
}

fn made_by_us(t: FsType, bs: u32, size: u64, ops: &[Op]) {
    let s = Scratch::new();
    let o = Options { block_size: Some(bs), device_zeroed: true, ..options(t) };
    format(&FileDisk::create(&s.image(), size), &o).unwrap();
    let half = ops.len() / 2;
    let m = run_ops(&s.image(), &ops[..half], None);
    run_ops(&s.image(), &ops[half..], Some(m));
}

fn made_by_mke2fs(args: &[&str], size: &str, ops: &[Op]) {
    let s = Scratch::new();
    mke2fs(&s.image(), args, size);
    run_ops(&s.image(), ops, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5, ..ProptestConfig::default() })]

    #[test]
    fn ext4_4k(ops in ops(1500)) {
        made_by_us(FsType::Ext4, 4096, 64 << 20, &ops);
    }

    #[test]
    fn ext4_1k(ops in ops(1500)) {
        made_by_us(FsType::Ext4, 1024, 32 << 20, &ops);
    }

    #[test]
    fn ext4_full(ops in ops(1500)) {
        made_by_us(FsType::Ext4, 1024, 6 << 20, &ops);
    }

    #[test]
    fn ext3_1k(ops in ops(1000)) {
        made_by_us(FsType::Ext3, 1024, 32 << 20, &ops);
    }

    #[test]
    fn ext2_2k(ops in ops(1000)) {
        made_by_us(FsType::Ext2, 2048, 32 << 20, &ops);
    }

    #[test]
    fn mke2fs_shapes(ops in ops(600)) {
        for shape in [
            &["-t", "ext4", "-O", "inline_data"][..],
            &["-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit", "-b", "1024"],
            &["-t", "ext4", "-O", "orphan_file,metadata_csum_seed,large_dir", "-b", "2048"],
            &["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"],
            &["-t", "ext4", "tea", "-I", "128"],
            &["-t", "ext2", "-O", "^dir_index,^filetype", "-b", "1024"],
        ] {
            made_by_mke2fs(shape, "32M", &ops);
        }
    }
}
