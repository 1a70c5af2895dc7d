//! The fuzz targets with fixed seeds.

use skipstone_tests::{attack, pictures};

#[test]
fn nodes_of_every_operator() {
    for seed in 0..4000 {
        attack::model(&attack::one_node(&attack::random(seed, 96)));
    }
}

#[test]
fn nodes_whose_bytes_were_changed() {
    for seed in 0..2000 {
        let (mut model, changes) = (attack::one_node(&attack::random(seed, 96)), attack::random(seed + 1_000_000, 12));
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
        attack::frame(&attack::random(seed, 8192));
    }
}

#[test]
fn changed_pictures() {
    for seed in 0..4000 {
        // One change or several; now and then no picture at all.
        pictures::picture(&attack::random(seed, 1 + 4 * (1 + seed as usize % 4)));
    }
}

#[test]
fn packages_with_changed_content() {
    for seed in 0..6000 {
        // One change or several.
        attack::package(&attack::random(seed, 1 + 6 * (1 + seed as usize % 3)));
    }
}
