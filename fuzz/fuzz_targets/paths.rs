#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| tollgate::proxy::fuzzing::paths(text));
