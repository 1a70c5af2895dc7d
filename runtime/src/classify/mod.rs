//! Classification: from an image to named, ranked scores.
//!
//! A classifier's file has more than a graph: how its images are normalized and what its classes are called. This is
//! stored in the model's metadata, read here once, and used by the command line and the bindings alike.
//!
//! | metadata key | meaning | default |
//! |---|---|---|
//! | `skipstone.labels` | class names, one per line | `class 0`, `class 1`, ... |
//! | `skipstone.labels.de`, ... | display names in that language | the labels |
//! | `skipstone.activation` | how the output becomes scores: `softmax`, `sigmoid` or `none` | derived from the last operator |
//! | `skipstone.resize` | length that the image's shorter side is resized to | the crop's |
//! | `skipstone.crop` | side of the center square to crop | the input's side |
//! | `skipstone.mean` | subtracted from each channel (of values 0 to 1), comma separated | ImageNet's; 0 for gray |
//! | `skipstone.std` | divides each channel afterwards | ImageNet's; 1 for gray |

mod classifier;
mod filter;
mod head;
mod image;
mod labels;
mod preprocess;
mod scores;

pub use classifier::{Classifier, Prediction};
pub use head::{Activation, Head, Origin};
pub use image::Image;
pub use labels::Labels;
pub use preprocess::{Normalization, Preprocess, Settings};
pub use scores::{Scored, softmax, top_k};
