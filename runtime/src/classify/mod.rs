//! Classification: from a picture to named, ranked scores.
//!
//! A classifier's file says more than its graph: how its images were prepared and what its
//! classes are called. That knowledge lives in the model's metadata, is read here once, and
//! serves the command line and the mobile bindings alike.
//!
//! | metadata key | meaning | where absent |
//! |---|---|---|
//! | `skipstone.labels` | class names, one a line | `class 0`, `class 1`, ... |
//! | `skipstone.labels.de`, ... | names to show to people of that language | the labels |
//! | `skipstone.activation` | what makes scores of the output: `softmax`, `sigmoid` or `none` | the last operator tells |
//! | `skipstone.resize` | length that the image's shorter side is resized to | the crop's |
//! | `skipstone.crop` | side of the square cut from the middle | the input's side |
//! | `skipstone.mean` | subtracted from each channel (of values 0 to 1), comma separated | ImageNet's; 0 for gray |
//! | `skipstone.std` | what each channel is then divided by | ImageNet's; 1 for gray |

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
