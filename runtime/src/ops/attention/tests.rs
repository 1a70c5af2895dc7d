use super::*;
use crate::ops::check::{Random, assert_close, check, check_fails};
use crate::tensor::Tensor;

fn plain(heads: usize, kv_heads: usize) -> Attention {
    Attention { scale: 0.3, ..Attention::plain(heads, kv_heads) }
}

#[test]
fn every_form_agrees_with_the_definition() {
    let mut random = Random(51);
    for case in 0..40 {
        let [batch, kv_heads, group, size, v_size] = std::array::from_fn(|_| random.pick(&[1, 2, 3]));
        let (heads, queries, new) = (kv_heads * group, random.pick(&[1, 3, 50]), random.pick(&[1, 4, 17]));
        let (past, mask, lens) = (case % 3 == 0, random.below(3), case % 3 == 1);
        let past_len = if past { random.below(4) } else { 0 };
        let keys = new + past_len;
        let rows = case % 2 == 0;
        let form = |heads: usize, len: usize, size: usize| match rows {
            true => vec![batch, len, heads * size],
            false => vec![batch, heads, len, size],
        };
        let mut inputs = vec![
            random.floats(&form(heads, queries, size)),
            random.floats(&form(kv_heads, new, size)),
            random.floats(&form(kv_heads, new, v_size)),
        ];
        if mask > 0 {
            let whole = [batch, heads, queries, keys];
            let mut dims = whole[random.below(4)..].to_vec();
            for dim in dims.iter_mut().rev().skip(1) {
                *dim = random.pick(&[1, *dim]);
            }
            inputs.push(random.tensor(if mask == 1 { DType::Bool } else { DType::F32 }, &dims));
        }
        if past {
            inputs.push(random.floats(&[batch, kv_heads, past_len, size]));
            inputs.push(random.floats(&[batch, kv_heads, past_len, v_size]));
        }
        if lens {
            let lens: Vec<i64> = (0..batch).map(|_| random.below(keys + 1) as i64).collect();
            inputs.push(Tensor::from_slice(&[batch], &lens).unwrap());
        }
        let op = Attention {
            softcap: random.pick(&[0.0, 1.5]),
            causal: random.below(2) == 1,
            mask: mask > 0,
            past,
            lens,
            present: past || random.below(2) == 1,
            scores: random.pick(&[
                None,
                Some(Scores::Products),
                Some(Scores::Capped),
                Some(Scores::Masked),
                Some(Scores::Weights),
            ]),
            ..plain(heads, kv_heads)
        };
        check(op, &inputs, 2e-5);
    }
}

#[test]
fn fully_masked_rows_are_zero_and_short_masks_hide_the_rest() {
    let mut random = Random(52);
    let inputs = |random: &mut Random, mask: Tensor| {
        vec![random.floats(&[1, 1, 2, 3]), random.floats(&[1, 1, 4, 3]), random.floats(&[1, 1, 4, 2]), mask]
    };
    let op = Attention { mask: true, ..plain(1, 1) };
    let mask = Tensor::from_slice(&[2, 4], &[0f32, 0.0, 0.0, 0.0].map(|_| f32::NEG_INFINITY).repeat(2)).unwrap();
    let y = check(op.clone(), &inputs(&mut random, mask), 1e-6);
    assert_eq!(y[0].elements::<f32>().unwrap(), [0.0; 4]);
    check(op, &inputs(&mut random, Tensor::from_slice(&[2, 3], &[0.5f32; 6]).unwrap()), 1e-6);
}

#[test]
fn empty_operands_give_empty_results() {
    let mut random = Random(53);
    for [batch, queries, keys, size] in [[0, 2, 3, 4], [1, 0, 3, 4], [1, 2, 0, 4], [1, 2, 3, 0]] {
        let [q, k] = [queries, keys].map(|len| random.floats(&[batch, 1, len, size]));
        check(plain(1, 1), &[q, k.clone(), k], 1e-6);
    }
}

/// From ONNX Runtime 1.32: soft cap, mask and causality together, with the elements of the generating script.
#[test]
fn values_are_those_of_onnx_runtime() {
    let make = |seed: usize, dims: &[usize], factor: f32| {
        let element = |i: usize| (((i * 29 + seed * 17 + i * i % 13) % 64) as f32 / 32.0 - 1.0) * factor;
        Tensor::from_slice(dims, &(0..dims.iter().product()).map(element).collect::<Vec<f32>>()).unwrap()
    };
    let op = Attention { softcap: 1.5, causal: true, mask: true, ..plain(2, 2) };
    let inputs =
        [make(1, &[1, 2, 3, 4], 3.0), make(2, &[1, 2, 5, 4], 3.0), make(3, &[1, 2, 5, 2], 1.0), make(4, &[3, 5], 2.0)];
    let wanted = [
        0.59375f32, -0.46875, 0.532085, -0.407085, 0.578193, -0.469835, -0.0625, 0.6875, -0.158132, 0.619192,
        -0.597989, 0.358791,
    ];
    let want = Tensor::from_slice(&[1, 2, 3, 2], &wanted).unwrap();
    assert_close(&check(op, &inputs, 1e-5)[0], &want, 1e-5, "ONNX Runtime");
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let mut random = Random(54);
    let [q, k] = [2, 5].map(|len| random.floats(&[2, len, 12]));
    let refused =
        |op: Attention, inputs: &[&Tensor]| op.infer(&inputs.iter().map(|t| t.fact()).collect::<Vec<_>>()).is_err();
    assert!(!refused(plain(4, 4), &[&q, &k, &k]));
    assert!(refused(plain(5, 5), &[&q, &k, &k]));
    assert!(refused(plain(4, 3), &[&q, &k, &k]));
    assert!(refused(plain(4, 4), &[&q, &k, &q]));
    assert!(refused(Attention { scale: f32::NAN, ..plain(4, 4) }, &[&q, &k, &k]));
    for dims in [&[2, 4][..], &[2, 1], &[3, 1, 2, 5], &[1, 1, 1, 2, 5], &[2, 6], &[]] {
        let mask = random.floats(dims);
        let refusal = refused(Attention { mask: true, ..plain(4, 4) }, &[&q, &k, &k, &mask]);
        assert_eq!(refusal, dims != [2, 4], "{dims:?}");
    }
    let lens = Tensor::from_slice(&[2], &[1i64, 6]).unwrap();
    check_fails(Attention { lens: true, ..plain(4, 4) }, &[q, k.clone(), k, lens]);
}
