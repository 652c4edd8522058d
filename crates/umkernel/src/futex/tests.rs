use super::WakeOp;

fn encode(op: u32, cmp: u32, op_arg: u32, cmp_arg: u32) -> u32 {
    op << 28 | cmp << 24 | (op_arg & 0xfff) << 12 | cmp_arg & 0xfff
}

#[test]
fn wake_op_decodes_signed_arguments_and_shifts() {
    let add = WakeOp::decode(encode(1, 2, -3i32 as u32, -1i32 as u32)).unwrap();
    assert_eq!(add.apply(10), 7);
    assert!(add.holds(-2i32 as u32) && !add.holds(-1i32 as u32));
    let or_bit = WakeOp::decode(encode(2 | 8, 5, 4, 0)).unwrap();
    assert_eq!(or_bit.apply(1), 17);
    assert!(WakeOp::decode(encode(5, 0, 0, 0)).is_err());
    assert!(WakeOp::decode(encode(0, 6, 0, 0)).is_err());
}
