//! How the budget of the store is divided.

/// An answer takes about so many bytes: an estimate, by which the number of those is bounded that are remembered after they
/// have been pushed out.
const USUAL: u64 = 4096;
/// The most shards: each has a lock, and its part of the budget.
const MOST_SHARDS: u64 = 64;
/// A shard has room for so many of the largest answers.
const LARGEST_PER_SHARD: u64 = 4;
/// This part of the budget is for what the allocator takes beside what is counted, which is 4 % and more, and for answers on their way.
const SPARE: u64 = 12;

/// What a store is made with.
pub(super) struct Size {
    /// Bytes of answers, all counted.
    pub(super) room: u64,
    pub(super) shards: usize,
    /// About how many answers have room.
    pub(super) usual: usize,
}

impl Size {
    /// Of a store that may take so many bytes, for answers of which the largest has `largest`.
    pub(super) fn of(budget: u64, largest: u64) -> Self {
        let room = budget - budget / SPARE;
        let shards = (budget / largest.saturating_mul(LARGEST_PER_SHARD).max(1)).clamp(1, MOST_SHARDS);
        let usual = usize::try_from(room / USUAL).unwrap_or(usize::MAX).max(1);
        Self { room, shards: 1 << shards.ilog2(), usual }
    }
}
