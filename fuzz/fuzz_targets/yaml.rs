#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::{Registry, config, runtime::Shared};

// Whatever the file holds, loading it ends, with a configuration or with problems that have a place.
fuzz_target!(|text: &str| {
    if let Err(rejected) = config::load("fuzz.yaml", text, &Registry::builtin(), &Shared::new()) {
        assert!(!rejected.0.found.is_empty());
        let _ = rejected.to_string();
    }
});
