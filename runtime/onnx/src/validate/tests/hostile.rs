//! Random and damaged bytes: validation must return, without a panic, whatever the input.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Valid models that together exercise every file of the validator.
fn seeds() -> Vec<Vec<u8>> {
    let shape = i64s("s", &[2], &[2, -1]);
    let branch = graph(&[node("Relu", &["x"], &["z"], &[])], &[], &[], &[message().text(1, "z")]);
    let branches = [body("then_branch", &branch), body("else_branch", &branch)];
    let scale = [f32s("s", &[1], &[0.5]), head("z", 2, &[1]).bytes(9, &[1])];
    let external = [message().text(1, "location").text(2, "w.bin"), message().text(1, "offset").text(2, "8")];
    vec![
        sound(),
        one(&[4, 3], "Reshape", &["x", "s"], &[], &[shape]),
        with(&[1], &[node("Not", &["x"], &["c"], &[]), node("If", &["c"], &["y"], &branches)], &[]),
        one(&[1, 3], "QuantizeLinear", &["x", "s", "z"], &[int("axis", 1)], &scale),
        one(&[4, 3], "Slice", &["x", "a", "b"], &[], &[i64s("a", &[1], &[1]), i64s("b", &[1], &[3])]),
        one(&[4, 3], "Add", &["x", "w"], &[], &[head("w", FLOAT, &[3]).all(13, &external).int(14, 1)]),
        one(&[1, 2, 4, 4], "Resize", &["x", "", "s"], &[], &[f32s("s", &[4], &[1.0, 1.0, 2.0, 2.0])]),
    ]
}

#[test]
fn the_seeds_are_sound() {
    for seed in seeds() {
        accepts(&seed);
    }
}

#[test]
fn every_byte_set_to_its_extremes() {
    for seed in seeds() {
        for at in 0..seed.len() {
            for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = seed.clone();
                bytes[at] = byte;
                let _ = validate(&bytes, &Limits::default());
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_get_an_answer(bytes in vec(any::<u8>(), 0..300)) {
        let _ = validate(&bytes, &Limits::default());
    }

    #[test]
    fn mutated_models_get_an_answer(
        seed in 0usize..7,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(error) = validate(&bytes, &Limits::default()) {
            prop_assert!(error.code().starts_with("model."));
            prop_assert!(error.to_string().len() < 2000);
        }
    }

    /// The start of one model followed by the end of another: fields repeat, and messages end up
    /// in the wrong place.
    #[test]
    fn spliced_models_get_an_answer(
        one in 0usize..7,
        other in 0usize..7,
        at in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, other) = (seeds().swap_remove(one), seeds().swap_remove(other));
        bytes.truncate(at.index(bytes.len()));
        bytes.extend(&other[from.index(other.len())..]);
        let _ = validate(&bytes, &Limits::default());
    }
}

/// The occurrences of a repeated field must be adjacent. Otherwise each read of the field would
/// have to skip the fields between them.
#[test]
fn numbers_lie_together() {
    let apart = |between: &Message| {
        let tensor = head("s", INT64, &[2]).int(7, 2);
        let tensor = Message([tensor.0, between.0.clone()].concat()).int(7, 3);
        one(&[6], "Reshape", &["x", "s"], &[], &[tensor])
    };
    accepts(&apart(&message()));
    refuses(&apart(&message().int(100, 0)), "model.repeated-field");
    let empty = (0..100).fold(message(), |message, _| message.bytes(7, &[]));
    refuses(&apart(&empty), "model.malformed");
}
