//! How much memory a piece of memory takes.

/// What the allocator (jemalloc) takes for `size` bytes: it has four sizes between each power of two and the next, and adds
/// a page to the large ones, so that they do not all begin at the same place of the processor's cache.
pub fn allocated(size: usize) -> usize {
    const LARGEST_SMALL: usize = 14 << 10;
    const PAGE: usize = 4 << 10;
    if size <= 128 {
        return size.next_multiple_of(16);
    }
    let step = (size - 1).checked_ilog2().map_or(1, |power| 1usize << power.saturating_sub(2));
    let class = size.checked_next_multiple_of(step).unwrap_or(size);
    if class > LARGEST_SMALL { class.saturating_add(PAGE) } else { class }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_the_allocator_has_them() {
        for (size, expected) in [
            (0, 0),
            (1, 16),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (257, 320),
            (1025, 1280),
            (14_336, 14_336),
            (14_337, 20_480),
            (65_536, 69_632),
            (65_537, 86_016),
        ] {
            assert_eq!(allocated(size), expected, "{size}");
        }
        assert_eq!(allocated(usize::MAX), usize::MAX);
    }
}
