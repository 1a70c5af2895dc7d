//! Classification: from an image, or the output of any model, to named, ranked scores.
//!
//! A classifier's file has more than a graph: how its images are normalized and what its classes are called. This is
//! stored in the model's metadata, read here once, and used by the command line and the bindings alike.
//!
//! | metadata key | meaning | default |
//! |---|---|---|
//! | `skipstone.labels` | class names, one per line | `class 0`, `class 1`, ... |
//! | `skipstone.labels.de`, ... | display names in that language | the labels |
//! | `skipstone.activation` | how the output becomes scores: `softmax`, `sigmoid` or `none` | derived from the last operator |
//! | `skipstone.temperature` | what logits are divided by before the activation | 1 |
//! | `skipstone.threshold` | the lowest score that is reported: one, or one for each class, comma separated | none |
//! | `skipstone.fit` | what happens to another aspect ratio: `shortest`, `stretch` or `letterbox` | `shortest` |
//! | `skipstone.interpolation` | a filter of Pillow, such as `bicubic`, or `linear`, OpenCV's | `bilinear` |
//! | `skipstone.resize` | length that the image's shorter side is resized to | the crop's |
//! | `skipstone.crop` | side of the center square to crop | the input's side |
//! | `skipstone.colors` | the channels: `rgb`, `bgr`, or `gray` | `rgb`; `gray` for one channel |
//! | `skipstone.scale` | factor of each byte | 1/255, so that values are 0 to 1 |
//! | `skipstone.mean` | subtracted from each scaled channel, comma separated | ImageNet's; 0 for gray or with a scale |
//! | `skipstone.std` | divides each channel afterwards | ImageNet's; 1 for gray or with a scale |

mod classifier;
mod filter;
mod frame_input;
mod head;
mod image;
mod labels;
mod preprocess;
#[cfg(any(feature = "rules", test))]
mod rule;
mod scorer;
mod scores;
mod settings;
mod temperature;

pub use crate::vision::{Colors, Interpolation};
pub use classifier::Classifier;
pub use frame_input::FrameInput;
pub use head::{Activation, Head, Origin};
pub use image::Image;
pub use labels::Labels;
pub use preprocess::{Normalization, Preprocess, Region};
#[cfg(any(feature = "rules", test))]
pub use rule::{Cosine, Frechet, Hamming, Rule};
pub use scorer::{Prediction, Scorer};
pub use scores::{Scored, softmax, top_k};
pub use settings::{Fit, Settings};
