//! A stream of camera frames makes no heap allocation after its first frame.

use std::collections::BTreeMap;

use skipstone::classify::{Preprocess, Settings};
use skipstone::vision::{Converter, Frame, Region, Rotation};
use skipstone::{DType, Fact, Isa, Shape};

#[test]
fn the_second_frame_allocates_nothing() {
    let fact = Fact::new(DType::F32, Shape::new(&[1, 3, 96, 96]).unwrap());
    let preprocess = Preprocess::new(&fact, &BTreeMap::new(), &Settings::default()).unwrap();
    let mut out = vec![0.0; preprocess.elements()];
    let (first, second) = (vec![90u8; 321 * 240 + 161 * 240], vec![200u8; 321 * 240 + 161 * 240]);
    let region = Region { x: 5, y: 7, width: 201, height: 190 };
    for isa in Isa::available() {
        let mut converter = Converter::new(isa);
        for rotation in [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters] {
            for make in [|bytes| Frame::nv21(321, 240, bytes), |bytes| Frame::i420(321, 240, bytes)] {
                let mut convert = |bytes| {
                    let frame = make(bytes).unwrap().rotated(rotation).cropped(region).unwrap();
                    preprocess.apply_frame(&frame, &mut converter, &mut out).unwrap();
                };
                convert(&first);
                let info = allocation_counter::measure(|| convert(&second));
                assert_eq!(info.count_total, 0, "{isa} {rotation:?}");
            }
        }
    }
}
