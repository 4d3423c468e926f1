//! Benchmark of sealing and opening 128 B, 4 KiB and 1 MiB with both ciphers.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use codex_crypto::{Cipher, Envelope, EpochSalt, Key, OsEntropy, TAG_LEN};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

criterion_main!(benches);
criterion_group!(benches, aead);

fn aead(criterion: &mut Criterion) {
    let key = Key::raw(&[7; 32]).unwrap();
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let (_, root) = Envelope::create(&key, cipher, b"bench", &mut OsEntropy).unwrap();
        let sealer = root.sealer(EpochSalt::draw(&mut OsEntropy).unwrap(), b"bench");
        let opener = root.opener(sealer.salt(), b"bench");
        let mut group = criterion.benchmark_group(format!("{cipher:?}"));
        for (name, len) in [("128 B", 128), ("4 KiB", 4 << 10), ("1 MiB", 1 << 20)] {
            group.throughput(Throughput::Bytes(len));
            let len = usize::try_from(len).unwrap();
            let mut buf = Vec::with_capacity(len + TAG_LEN);
            group.bench_function(BenchmarkId::new("seal", name), |bencher| {
                bencher.iter(|| {
                    buf.resize(len, 0);
                    let nonce = sealer.next_nonce().unwrap();
                    sealer.seal(nonce, black_box(&[1; 64]), &mut buf, 0).unwrap();
                });
            });
            let nonce = sealer.next_nonce().unwrap();
            let counter = nonce.counter();
            buf.resize(len, 0);
            sealer.seal(nonce, &[1; 64], &mut buf, 0).unwrap();
            group.bench_function(BenchmarkId::new("open", name), |bencher| {
                bencher.iter_batched_ref(
                    || buf.clone(),
                    |sealed| {
                        opener.open_in_place(counter, black_box(&[1; 64]), sealed).unwrap();
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}
