//! `/proc/cpuinfo`: the host's processor, as often as the guest has one.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// Names of feature bits (`asm/cpufeatures.h`), by CPUID leaf and register: 1 edx, 1 ecx, 0x80000001 edx and ecx, 7 ebx.
const LEAF_1_EDX: [&str; 32] = [
    "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca", "cmov",
    "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
];
const LEAF_1_ECX: [&str; 32] = [
    "pni",
    "pclmulqdq",
    "dtes64",
    "monitor",
    "ds_cpl",
    "vmx",
    "smx",
    "est",
    "tm2",
    "ssse3",
    "cid",
    "sdbg",
    "fma",
    "cx16",
    "xtpr",
    "pdcm",
    "",
    "pcid",
    "dca",
    "sse4_1",
    "sse4_2",
    "x2apic",
    "movbe",
    "popcnt",
    "tsc_deadline_timer",
    "aes",
    "xsave",
    "",
    "avx",
    "f16c",
    "rdrand",
    "hypervisor",
];
const LEAF_7_EBX: [&str; 32] = [
    "fsgsbase",
    "tsc_adjust",
    "sgx",
    "bmi1",
    "hle",
    "avx2",
    "",
    "smep",
    "bmi2",
    "erms",
    "invpcid",
    "rtm",
    "cqm",
    "",
    "mpx",
    "rdt_a",
    "avx512f",
    "avx512dq",
    "rdseed",
    "adx",
    "smap",
    "avx512ifma",
    "",
    "clflushopt",
    "clwb",
    "intel_pt",
    "avx512pf",
    "avx512er",
    "avx512cd",
    "sha_ni",
    "avx512bw",
    "avx512vl",
];
const EXTENDED_EDX: [(u32, &str); 7] =
    [(11, "syscall"), (20, "nx"), (22, "mmxext"), (25, "fxsr_opt"), (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm")];
const EXTENDED_ECX: [(u32, &str); 7] =
    [(0, "lahf_lm"), (2, "svm"), (5, "abm"), (6, "sse4a"), (7, "misalignsse"), (8, "3dnowprefetch"), (16, "fma4")];

fn registers_text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers.iter().flat_map(|r| r.to_le_bytes()).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).trim().into()
}

fn flags() -> String {
    let mut names = Vec::new();
    let (basic, extended) = (__cpuid(1), __cpuid(0x8000_0001));
    let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    let set = |word: u32, bit: usize| word >> bit & 1 == 1;
    let tables = [(basic.edx, &LEAF_1_EDX), (basic.ecx, &LEAF_1_ECX), (features, &LEAF_7_EBX)];
    for (at, (word, table)) in tables.into_iter().enumerate() {
        names.extend(
            table.iter().enumerate().filter(|&(bit, name)| set(word, bit) && !name.is_empty()).map(|(_, n)| *n),
        );
        if at == 0 {
            for (word, table) in [(extended.edx, EXTENDED_EDX), (extended.ecx, EXTENDED_ECX)] {
                names.extend(table.iter().filter(|(bit, _)| set(word, *bit as usize)).map(|(_, name)| *name));
            }
        }
    }
    names.join(" ")
}

/// The text for `cpus` processors.
pub(super) fn text(cpus: u32) -> String {
    let vendor = __cpuid(0);
    let signature = __cpuid(1).eax;
    let (stepping, model, family) = (signature & 15, signature >> 4 & 15, signature >> 8 & 15);
    let full_family = if family == 15 { family + (signature >> 20 & 255) } else { family };
    let full_model = if family == 6 || family == 15 { model + (signature >> 16 & 15) * 16 } else { model };
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004).map(__cpuid).flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx]).collect();
    let address = if __cpuid(0x8000_0000).eax >= 0x8000_0008 { __cpuid(0x8000_0008).eax } else { 0x3024 };
    let flags = flags();
    let mut text = String::new();
    for cpu in 0..cpus {
        text += &format!(
            "processor\t: {cpu}\nvendor_id\t: {}\ncpu family\t: {full_family}\nmodel\t\t: {full_model}\nmodel name\t: {}\n\
             stepping\t: {stepping}\nphysical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\ncpu cores\t: {cpus}\n\
             apicid\t\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t: {flags}\n\
             clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: {} bits physical, {} bits virtual\n\n",
            registers_text(&[vendor.ebx, vendor.edx, vendor.ecx]),
            registers_text(&brand),
            vendor.eax,
            address & 255,
            address >> 8 & 255,
        );
    }
    text
}
