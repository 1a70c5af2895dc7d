//! Tensors and types: dimensions, element types, and data that matches them.

use crate::external;
use crate::limits::Limits;

use super::checked::{Dimension, ExternalTensor, ValueType};
use crate::element::{ElementType, TypedField};
use crate::invalid::{Invalid, Place, Rule, list, quoted};
use crate::proto::{Dim, Numbers, SparseTensor, Tensor, Type};

/// Size of a valid tensor.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// Count of elements.
    pub elements: u64,
    /// Bytes of its packed data; 0 for strings.
    pub bytes: u64,
    /// Location of its data, if it is not in the model file.
    pub external: Option<ExternalTensor>,
}

/// Checks a tensor of an initializer or attribute.
pub(super) fn check(tensor: &Tensor<'_>, limits: &Limits) -> Result<Extent, Invalid> {
    let invalid = |rule, what: String| Invalid::new(rule, tensor.place(), what);
    let element = tensor
        .element()
        .ok_or_else(|| invalid(Rule::DataType, format!("{} is not an element type", tensor.data_type)))?;
    let elements = check_dims(&tensor.dims, limits, &tensor.place())?;
    if tensor.segmented {
        return Err(invalid(
            Rule::TensorData,
            "the tensor is a segment of a larger tensor, which is not supported".into(),
        ));
    }
    match tensor.data_location {
        0 if tensor.external.is_empty() => {}
        1 => {
            let external = external_data(tensor, element, elements)?;
            return Ok(Extent { elements, bytes: external.length, external: Some(external) });
        }
        0 => {
            return Err(invalid(
                Rule::ExternalData,
                "the tensor names external data, but is not marked as external".into(),
            ));
        }
        other => return Err(invalid(Rule::ExternalData, format!("{other} is not a data location"))),
    }
    check_data(tensor, element, elements)?;
    Ok(Extent { elements, bytes: element.packed_bytes(elements).unwrap_or(0), external: None })
}

/// Checks dimensions and returns their product.
pub(super) fn check_dims(dims: &[i64], limits: &Limits, place: &Place) -> Result<u64, Invalid> {
    let invalid = |what: String| Invalid::new(Rule::Dimension, place.clone(), what);
    let mut product = 1u64;
    let mut empty = false;
    for &dim in dims {
        let dim = u64::try_from(dim).map_err(|_| invalid(format!("dimension {dim} is negative")))?;
        if dim > limits.max_tensor_elements {
            return Err(invalid(format!(
                "dimension {dim} is above the limit 'elements' of {}",
                limits.max_tensor_elements
            )));
        }
        empty |= dim == 0;
        let most = limits.max_tensor_elements;
        // A zero does not lift the limit: strides are products that may leave the zero out.
        product = product
            .checked_mul(dim.max(1))
            .filter(|&product| product <= most)
            .ok_or_else(|| invalid(format!("the tensor has more than {most} elements (limit 'elements')")))?;
    }
    Ok(if empty { 0 } else { product })
}

/// Checks that data in the model file is stored once, in the right field, with as many elements
/// as the shape requires.
fn check_data(tensor: &Tensor<'_>, element: ElementType, elements: u64) -> Result<(), Invalid> {
    let invalid = |what: String| Invalid::new(Rule::TensorData, tensor.place(), what);
    let typed = [
        (TypedField::Float, tensor.float_data.count, "float_data"),
        (TypedField::Int32, tensor.int32_data.count, "int32_data"),
        (TypedField::Text, tensor.strings, "string_data"),
        (TypedField::Int64, tensor.int64_data.count, "int64_data"),
        (TypedField::Double, tensor.double_data.count, "double_data"),
        (TypedField::Uint64, tensor.uint64_data.count, "uint64_data"),
    ];
    let mut filled = typed.iter().filter(|(_, count, _)| *count > 0);
    let first = filled.next();
    if let (Some((_, _, one)), Some((_, _, other))) = (first, filled.next()) {
        return Err(invalid(format!("data is stored both in {one} and in {other}")));
    }
    if let (Some((_, _, name)), false) = (first, tensor.raw.is_empty()) {
        return Err(invalid(format!("data is stored both in raw_data and in {name}")));
    }
    if !tensor.raw.is_empty() {
        let Some(bytes) = element.packed_bytes(elements) else {
            return Err(invalid(format!("{} data cannot be stored in raw_data", element.name())));
        };
        if tensor.raw.len() as u64 != bytes {
            let (have, name) = (tensor.raw.len(), element.name());
            return Err(invalid(format!("{elements} elements of {name} take {bytes} bytes, not {have}")));
        }
        return Ok(());
    }
    let want = element.typed_entries(elements).unwrap_or(u64::MAX);
    match first {
        None if want == 0 => Ok(()),
        None => Err(invalid(format!("the shape has {elements} elements, but there is no data"))),
        Some((field, _, name)) if *field != element.typed_field() => {
            Err(invalid(format!("{} elements are stored in {name}", element.name())))
        }
        Some((_, count, name)) if *count != want => {
            Err(invalid(format!("{elements} elements take {want} entries of {name}, not {count}")))
        }
        Some((TypedField::Int32, ..)) => check_range(tensor.int32_data, element).map_err(invalid),
        Some((TypedField::Uint64, ..)) if element == ElementType::Uint32 => {
            match tensor.uint64_data.ints().find(|value| u32::try_from(*value).is_err()) {
                Some(value) => Err(invalid(format!("{value} is not a uint32"))),
                None => Ok(()),
            }
        }
        Some(_) => Ok(()),
    }
}

fn check_range(data: Numbers<'_>, element: ElementType) -> Result<(), String> {
    let range = element.int32_range();
    match data.ints().find(|value| !range.contains(value)) {
        Some(value) => Err(format!("{value} is out of range for {}", element.name())),
        None => Ok(()),
    }
}

/// Reads and checks the description of external data.
fn external_data(tensor: &Tensor<'_>, element: ElementType, elements: u64) -> Result<ExternalTensor, Invalid> {
    let invalid = |what: String| Invalid::new(Rule::ExternalData, tensor.place(), what);
    let typed = [tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data];
    if !tensor.raw.is_empty() || tensor.strings > 0 || typed.iter().any(|data| data.count > 0) {
        return Err(invalid("data is stored both externally and in the model file".into()));
    }
    let bytes =
        element.packed_bytes(elements).ok_or_else(|| invalid(format!("{} data cannot be external", element.name())))?;
    let (mut location, mut offset, mut length) = (None, None, None);
    for &(key, value) in &tensor.external {
        let repeated = match key {
            "location" => location.replace(value).is_some(),
            "offset" => offset
                .replace(decimal(value).ok_or_else(|| invalid(format!("offset '{}' is not a number", quoted(value))))?)
                .is_some(),
            "length" => length
                .replace(decimal(value).ok_or_else(|| invalid(format!("length '{}' is not a number", quoted(value))))?)
                .is_some(),
            "checksum" => false,
            _ => return Err(invalid(format!("'{}' is an unknown key", quoted(key)))),
        };
        if repeated {
            return Err(invalid(format!("{key} is given twice")));
        }
    }
    let location = location.ok_or_else(|| invalid("no location is given".into()))?;
    if let Some(fault) = external::location_fault(location) {
        return Err(Invalid::new(
            Rule::ExternalPath,
            tensor.place(),
            format!("location '{}' {fault}", quoted(location)),
        ));
    }
    let offset = offset.unwrap_or(0);
    if offset.checked_add(bytes).is_none() {
        return Err(invalid(format!("offset {offset} and {bytes} bytes overflow")));
    }
    if length.is_some_and(|length| length != bytes) {
        let length = length.unwrap_or(0);
        return Err(invalid(format!(
            "{elements} elements of {} take {bytes} bytes, the length is given as {length}",
            element.name()
        )));
    }
    Ok(ExternalTensor { tensor: tensor.name.to_owned(), location: location.to_owned(), offset, length: bytes })
}

/// Parses a number that consists only of decimal digits.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Checks a sparse tensor: one index per value, ascending, each inside the shape.
pub(super) fn check_sparse(sparse: &SparseTensor<'_>, limits: &Limits) -> Result<Extent, Invalid> {
    let (values, indices) = (&sparse.values, &sparse.indices);
    let invalid = |what: String| Invalid::new(Rule::SparseTensor, values.place(), what);
    let extent = check(values, limits)?;
    check(indices, limits)?;
    let elements = check_dims(&sparse.dims, limits, &values.place())?;
    let [stored] = values.dims[..] else {
        return Err(invalid("the values must have one dimension".into()));
    };
    if sparse.dims.is_empty() || elements == 0 {
        return Err(invalid("a sparse tensor needs dimensions, all above zero".into()));
    }
    let rank = sparse.dims.len() as i64;
    let width = match indices.dims[..] {
        [count] if count == stored => 1,
        [count, width] if count == stored && width == rank => sparse.dims.len(),
        _ => {
            return Err(invalid(format!(
                "the indices have the shape {}, expected [{stored}] or [{stored}, {rank}]",
                list(&indices.dims)
            )));
        }
    };
    if indices.element() != Some(ElementType::Int64) {
        return Err(invalid("the indices must be int64".into()));
    }
    let Some(mut numbers) = indices.integers() else {
        return Err(invalid("the indices must be in the model file".into()));
    };
    let mut last = None;
    for _ in 0..stored {
        let mut linear = 0u64;
        if width == 1 {
            linear = numbers.next().and_then(|index| u64::try_from(index).ok()).unwrap_or(u64::MAX);
        } else {
            for &dim in &sparse.dims {
                let index = numbers.next().unwrap_or(-1);
                if !(0..dim).contains(&index) {
                    return Err(invalid(format!("index {index} is outside of a dimension of {dim}")));
                }
                linear = linear.saturating_mul(dim.unsigned_abs()).saturating_add(index.unsigned_abs());
            }
        }
        if linear >= elements {
            return Err(invalid(format!("index {linear} is outside of {elements} elements")));
        }
        if last.is_some_and(|last| linear <= last) {
            return Err(invalid(format!("the indices do not ascend at {linear}")));
        }
        last = Some(linear);
    }
    Ok(extent)
}

/// Checks the type of a value. If `declared`, the element type is required; otherwise it may be
/// left to shape inference.
pub(super) fn check_type(kind: &Type<'_>, declared: bool, limits: &Limits, place: &Place) -> Result<(), Invalid> {
    let invalid = |rule, what: String| Invalid::new(rule, place.clone(), what);
    match kind {
        Type::Missing | Type::Opaque if !declared => Ok(()),
        Type::Missing => Err(invalid(Rule::DataType, "the value has no type".into())),
        Type::Opaque => Err(invalid(Rule::DataType, "the type of the value is opaque".into())),
        Type::Tensor(element, shape) | Type::SparseTensor(element, shape) => {
            if ElementType::from_number(*element).is_none() && (declared || *element != 0) {
                return Err(invalid(Rule::DataType, format!("{element} is not an element type")));
            }
            let mut known = Vec::new();
            for dim in shape.iter().flatten() {
                match dim {
                    // Some exporters write -1 for an unknown dimension.
                    Dim::Known(-1) => {}
                    Dim::Known(dim) => known.push(*dim),
                    // Any text is valid, as the name is never evaluated.
                    Dim::Symbol(_) | Dim::Unknown => {}
                }
            }
            check_dims(&known, limits, place).map(drop)
        }
        Type::Sequence(inner) | Type::Optional(inner) => check_type(inner, declared, limits, place),
        Type::Map(key, value) => match ElementType::from_number(*key) {
            Some(key) if key.is_integer() || key == ElementType::String => check_type(value, declared, limits, place),
            _ => Err(invalid(Rule::DataType, format!("{key} is not a valid type for keys"))),
        },
    }
}

/// Converts a type to the form that [`super::Checked`] reports.
pub(super) fn describe(kind: Option<&Type<'_>>) -> ValueType {
    match kind {
        Some(Type::Tensor(element, shape)) => ValueType::Tensor {
            element: ElementType::from_number(*element),
            shape: shape.as_ref().map(|dims| {
                dims.iter()
                    .map(|dim| match dim {
                        Dim::Known(dim) => u64::try_from(*dim).map_or(Dimension::Unknown, Dimension::Known),
                        Dim::Symbol(name) if !name.is_empty() => Dimension::Symbol((*name).to_owned()),
                        _ => Dimension::Unknown,
                    })
                    .collect()
            }),
        },
        Some(Type::SparseTensor(..)) => ValueType::Other("sparse tensor"),
        Some(Type::Sequence(_)) => ValueType::Other("sequence"),
        Some(Type::Optional(_)) => ValueType::Other("optional"),
        Some(Type::Map(..)) => ValueType::Other("map"),
        Some(Type::Missing | Type::Opaque) | None => ValueType::Other("unknown"),
    }
}
