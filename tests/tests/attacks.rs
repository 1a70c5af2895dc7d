//! The fuzz targets with fixed seeds.

use skipstone_tests::attack;

/// Bytes from a linear congruential generator.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn nodes_of_every_operator() {
    for seed in 0..4000 {
        attack::model(&attack::one_node(&bytes(seed, 96)));
    }
}

#[test]
fn nodes_whose_bytes_were_changed() {
    for seed in 0..2000 {
        let (mut model, changes) = (attack::one_node(&bytes(seed, 96)), bytes(seed + 1_000_000, 12));
        for change in changes.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % model.len();
            model[at] ^= 1 << (change[2] % 8);
        }
        attack::model(&model);
    }
}

#[test]
fn frames() {
    for seed in 0..4000 {
        attack::frame(&bytes(seed, 8192));
    }
}
