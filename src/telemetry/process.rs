//! What the kernel says of this process.

/// Resident memory in bytes, or 0 where `/proc` is not there.
pub fn resident_bytes() -> u64 {
    // statm counts pages; 4 KiB is the page size of every platform that Pingora's upgrade supports.
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * 4096)
}
