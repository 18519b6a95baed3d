//! How often stages 3 and 4 ask for memory. A binary of its own, since the counting allocator is global.

#[path = "support/pgoutput.rs"]
mod pgoutput;

use pgoutput::{Stages, stream};
use portal_audit::translate::Batch;

/// The first transactions describe the table and bring each buffer to its size.
const WARM_UP: usize = 30;

/// Allocations for 1,000 transactions of one change, whose table has `columns`.
fn allocations(columns: usize) -> u64 {
    let mut stages = Stages::new();
    let messages = stream(columns, WARM_UP + 1_000, 1);
    let (first, rest) = messages.split_at(WARM_UP * 3 + 1);
    stages.run(first, &mut Batch::default());
    let mut batch = Batch::default();
    let counted = allocation_counter::measure(|| stages.run(rest, &mut batch));
    assert_eq!((batch.events.len(), batch.changes), (1_000, 1_000));
    counted.count_total
}

/// All that is left is the growth of the batch's two buffers, which double.
#[test]
fn a_change_costs_no_allocation_however_wide_its_row_is() {
    let narrow = allocations(5);
    assert_eq!(narrow, allocations(50));
    assert!(narrow <= 32, "{narrow} allocations for 1,000 changes");
}
