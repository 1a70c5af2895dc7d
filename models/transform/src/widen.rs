//! Wider layers with the same outputs: a larger network that starts where a trained one is (T. Chen, I. Goodfellow and
//! J. Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", 2016).
//!
//! New channels are copies of random ones, and the layers that read a channel share its weights out among its copies. The
//! shares are uneven, so that copies get different gradients and become different channels in training: no noise is needed.

use skipstone::Options;

use crate::channels::{Copies, Family, Network, resized};
use crate::editor::Editor;
use crate::error::{Error, Result};
use crate::prepare;
use crate::random::Random;

/// How much wider.
#[derive(Clone, Debug)]
pub struct Widening {
    /// New channels as a share of those that a layer has.
    pub by: f64,
    /// Seed of the choice of channels and of the shares.
    pub seed: u64,
    /// Names of layers that keep their channels.
    pub skip: Vec<String>,
}

/// A wider model.
#[derive(Clone, Debug)]
pub struct Widened {
    /// The model, as a file.
    pub bytes: Vec<u8>,
    /// The layers, with their filters before and after.
    pub layers: Vec<(String, [usize; 2])>,
}

/// Most new channels, as a share of those that there are.
const MOST: f64 = 7.0;
/// Layers of at least twice as many channels get new ones in multiples of this, since kernels take four or more at once.
const MULTIPLE: usize = 4;
/// Smallest and largest share, before the shares of a channel are scaled to add up to 1.
const SHARES: [f32; 2] = [0.5, 1.5];

/// Widens the model in `bytes`, an ONNX file.
///
/// # Errors
/// A model that is malformed, without channels to copy, or whose outputs would not stay the same.
pub fn widen(bytes: &[u8], widening: &Widening, options: &Options) -> Result<Widened> {
    if !(widening.by > 0.0 && widening.by <= MOST) {
        let reason = format!("a model is widened by more than 0 and at most {} %", MOST * 100.0);
        return Err(Error::Unsupported(reason));
    }
    let mut editor = Editor::open(bytes)?;
    prepare::constants(&mut editor.graph);
    let network = Network::new(editor, &widening.skip, options)?;
    let mut copies = network.all_stay();
    for (at, family) in network.families.iter().enumerate() {
        copy(&mut copies, family, widening.by, &mut Random::new(widening.seed, &format!("family {at}")));
    }
    if copies.0.iter().all(|shares| shares.len() == 1) {
        let reason = "the model has no channels to copy but attention heads, whose parts would be torn apart";
        return Err(Error::Unsupported(reason.into()));
    }
    let wide = resized(&network, &copies, &network.editor, options)?;
    let layers = network.layers.iter();
    let layers = layers.map(|layer| (layer.name.clone(), [layer.filters, network.filters(layer, &copies)])).collect();
    Ok(Widened { bytes: wide.write(), layers })
}

/// Copies random channels of a family. The parts of a wide channel, such as an attention head, would be torn apart.
fn copy(copies: &mut Copies, family: &Family, by: f64, random: &mut Random) {
    let held = family.channels.len();
    if family.wide {
        return;
    }
    let multiple = if held < 2 * MULTIPLE { 1 } else { MULTIPLE };
    let new = ((held as f64 * by / multiple as f64).round() as usize).max(1) * multiple;
    let mut counts = vec![1; held];
    (0..new).for_each(|_| counts[random.below(held)] += 1);
    for (&channel, count) in family.channels.iter().zip(counts) {
        let mut shares: Vec<f32> =
            (0..count).map(|_| SHARES[0] + (SHARES[1] - SHARES[0]) * random.next() as f32 / (1 << 24) as f32).collect();
        let sum: f32 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
        if count > 1 {
            copies.0[channel] = shares;
        }
    }
}
