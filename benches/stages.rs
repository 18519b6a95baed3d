//! What stages 2 to 4 and leaves cost per change, without a server: `cargo bench --bench stages`. `./x bench` measures the whole.

#[path = "../tests/support/pgoutput.rs"]
mod pgoutput;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pgoutput::{Stages, stream};
use portal_audit::{
    decode::decode,
    event::Event,
    leaf::{Payloads, SALT_BYTES, leaf},
    translate::Batch,
};
use std::hint::black_box;

const CHANGES: usize = 30_000;
const COLUMNS: usize = 8;

/// Stage 2: messages → row changes, in place.
fn decoding(criterion: &mut Criterion) {
    let messages = stream(COLUMNS, 1, CHANGES);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(CHANGES as u64));
    group.bench_function("row change", |bencher| {
        bencher.iter(|| {
            for (_, message) in &messages {
                black_box(decode(black_box(message), false).is_ok());
            }
        });
    });
    group.finish();
}

/// Stages 2 to 4: messages → events, in small transactions and in one.
fn translating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    group.throughput(Throughput::Elements(CHANGES as u64));
    for (name, transactions) in [
        ("transactions of one change", CHANGES),
        ("transactions of two", CHANGES / 2),
        ("one transaction", 1),
    ] {
        let messages = stream(COLUMNS, transactions, CHANGES / transactions);
        group.bench_function(name, |bencher| {
            let fresh = || (Stages::new(), Batch::default());
            let run = |(mut stages, mut batch): (Stages, Batch)| {
                stages.run(&messages, &mut batch);
                batch
            };
            bencher.iter_batched(fresh, run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// Before stage 5: events → leaves of a tree.
fn sealing(criterion: &mut Criterion) {
    let mut batch = Batch::default();
    Stages::new().run(&stream(COLUMNS, CHANGES, 1), &mut batch);
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Elements(batch.events.len() as u64));
    let (mut payloads, mut text) = (Payloads::default(), String::new());
    group.bench_function("payload as stored", |bencher| {
        bencher.iter(|| {
            for event in batch.events.iter() {
                text.clear();
                payloads.push(black_box(event.payload), &mut text);
                black_box(&text);
            }
        });
    });
    group.bench_function("leaf", |bencher| {
        bencher.iter(|| {
            for event in batch.events.iter() {
                text.clear();
                payloads.push(black_box(event.payload), &mut text);
                black_box(leaf(&[7; SALT_BYTES], &Event { payload: &text, ..event }));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, translating, sealing);
criterion_main!(benches);
