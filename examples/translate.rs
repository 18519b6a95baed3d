//! Measures stages 3 and 4 alone: pgoutput bytes in memory → events, without any IO.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../tests/support/pgoutput.rs"]
mod pgoutput;

use pgoutput::{Stages, stream};
use portal_audit::translate::Batch;
use std::time::Instant;

const CHANGES: usize = 300_000;

fn main() {
    for (columns, changes) in [(5, 1), (5, 1_000), (50, 1), (50, 1_000)] {
        let messages = stream(columns, CHANGES / changes, changes);
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let mut stages = Stages::new();
            let started = Instant::now();
            // Batches of the pipeline's size, so that no buffer grows beyond what it would there.
            for messages in messages.chunks(3_000) {
                stages.run(messages, &mut Batch::default());
            }
            best = best.min(started.elapsed().as_secs_f64());
        }
        let micros = best * 1e6 / CHANGES as f64;
        println!("{columns} columns, {changes} changes a transaction: {micros:.2} µs per change");
    }
}
