//! Requests and replies: arguments and results that are not numbers, as bytes of an array.
//!
//! Kotlin's `Request` writes arguments, and its `Reply` reads results, in the order in which the functions here read and
//! write them. A call so passes one array each way: it looks up no class, keeps no reference, and text is plain UTF-8.
//!
//! | | bytes |
//! |---|---|
//! | int, long, float, number | 4, 8, 4, 8, big-endian as Java writes them |
//! | flag | an int, 0 or 1 |
//! | bytes, text | an int, how many, then the bytes; text is UTF-8 |
//! | list | an int, how many, then the items |
//! | optional | a flag, then the value if it is 1 |
//!
//! A reply begins with an int: 0 before the result, or the number of an error before its code and its message.

use skipstone_ffi::{
    Activation, ClassifierInfo, ClassifierOptions, Config, Latency, Memory, ModelInfo, Normalization, Power, Result,
    SkipstoneError, StepTime, TensorInfo,
};

use crate::hardware::HardwarePixels;

/// The arguments of a call that are not yet read.
pub(crate) struct Request<'a>(pub(crate) &'a [u8]);

impl Request<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(broken)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    pub(crate) fn number(&mut self) -> Result<f64> {
        Ok(f64::from_be_bytes(self.take()?))
    }

    fn float(&mut self) -> Result<f32> {
        Ok(f32::from_be_bytes(self.take()?))
    }

    fn count(&mut self) -> Result<u32> {
        u32::try_from(self.int()?).map_err(|_| broken())
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.count()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(broken)?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| broken())
    }

    pub(crate) fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        (0..self.count()?).map(|_| item(self)).collect()
    }

    pub(crate) fn optional<T>(&mut self, value: impl Fn(&mut Self) -> Result<T>) -> Result<Option<T>> {
        match self.int()? {
            0 => Ok(None),
            _ => value(self).map(Some),
        }
    }

    pub(crate) fn config(&mut self) -> Result<Config> {
        Ok(Config {
            threads: self.count()?,
            power: match self.int()? {
                0 => Power::Fast,
                1 => Power::Balanced,
                2 => Power::Efficient,
                _ => return Err(broken()),
            },
            public_key: self.optional(Self::bytes)?,
            copy: self.int()? != 0,
            shapes: {
                let dimension = |it: &mut Self| it.count().map(u64::from);
                self.list(|it| Ok((it.text()?, it.list(dimension)?)))?.into_iter().collect()
            },
            limits: self.list(|it| Ok((it.text()?, it.long()?)))?.into_iter().collect(),
            expert_budget: self.optional(Self::long)?,
        })
    }

    pub(crate) fn options(&mut self) -> Result<ClassifierOptions> {
        Ok(ClassifierOptions {
            activation: match self.int()? {
                -1 => None,
                0 => Some(Activation::Softmax),
                1 => Some(Activation::Sigmoid),
                2 => Some(Activation::None),
                _ => return Err(broken()),
            },
            threshold: self.optional(Self::float)?,
            allow: self.list(Self::text)?,
            deny: self.list(Self::text)?,
            locale: self.optional(Self::text)?,
            labels: self.optional(Self::text)?,
        })
    }
}

fn broken() -> SkipstoneError {
    let message = "the Kotlin library and the native library do not fit: they are of different versions";
    SkipstoneError::Internal { code: "internal".into(), message: message.into() }
}

/// The result of a call.
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    /// The reply with what `body` writes, or with its error.
    pub(crate) fn of(body: impl FnOnce(&mut Self) -> Result<()>) -> Vec<u8> {
        let mut reply = Self(vec![0; 4]);
        if let Err(error) = body(&mut reply) {
            reply.0.clear();
            reply.int(error.number());
            reply.text(error.code());
            reply.text(&error.to_string());
        }
        reply.0
    }

    fn int(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn long(&mut self, value: i64) {
        self.0.extend(value.to_be_bytes());
    }

    fn number(&mut self, value: f64) {
        self.0.extend(value.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.int(i32::try_from(count).unwrap_or(i32::MAX));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.count(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    fn floats(&mut self, values: &[f32]) {
        self.count(values.len());
        values.iter().for_each(|value| self.0.extend(value.to_be_bytes()));
    }

    fn optional_long(&mut self, value: Option<u64>) {
        self.int(value.is_some().into());
        value.iter().for_each(|&value| self.long(value.cast_signed()));
    }

    pub(crate) fn model(&mut self, info: &ModelInfo) {
        self.text(&info.name);
        self.long(info.parameters.cast_signed());
        self.long(info.weights_bytes.cast_signed());
        self.long(info.arena_bytes.cast_signed());
        self.text(&info.isa);
        self.int(info.threads.cast_signed());
        self.tensors(&info.inputs);
        self.tensors(&info.outputs);
        self.texts(&info.labels);
        self.count(info.metadata.len());
        for (key, value) in &info.metadata {
            self.text(key);
            self.text(value);
        }
    }

    fn tensors(&mut self, tensors: &[TensorInfo]) {
        self.count(tensors.len());
        for tensor in tensors {
            self.text(&tensor.name);
            self.text(&tensor.element);
            self.count(tensor.shape.len());
            tensor.shape.iter().for_each(|dimension| self.long(dimension.cast_signed()));
        }
    }

    pub(crate) fn classifier(&mut self, info: &ClassifierInfo) {
        self.texts(&info.labels);
        self.texts(&info.display_names);
        self.text(&info.scores);
        let Normalization { mean, std, origin } = &info.normalization;
        self.floats(mean);
        self.floats(std);
        self.text(origin);
        self.int(info.photo_side.cast_signed());
    }

    /// The handle of locked pixels, and what they are.
    pub(crate) fn pixels(&mut self, handle: i64, pixels: &HardwarePixels) {
        self.long(handle);
        for value in [pixels.format as u32, pixels.width, pixels.height] {
            self.int(value.cast_signed());
        }
        self.count(pixels.planes().len());
        for plane in pixels.planes() {
            self.int(plane.row_stride.cast_signed());
            self.int(plane.pixel_stride.cast_signed());
        }
    }

    pub(crate) fn latency(&mut self, it: &Latency) {
        self.long(it.runs.cast_signed());
        [it.min, it.p50, it.p90, it.p99, it.max, it.mean].into_iter().for_each(|ms| self.number(ms));
    }

    pub(crate) fn memory(&mut self, it: &Memory) {
        [it.weights_bytes, it.packed_bytes, it.arena_bytes]
            .into_iter()
            .for_each(|bytes| self.long(bytes.cast_signed()));
        self.optional_long(it.resident_bytes);
        self.optional_long(it.peak_resident_bytes);
    }

    pub(crate) fn steps(&mut self, steps: &[StepTime]) {
        self.count(steps.len());
        for step in steps {
            self.text(&step.name);
            self.text(&step.op);
            self.text(&step.kernel);
            self.number(step.ms);
            self.number(step.share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as Java's `DataOutputStream` writes them.
    #[derive(Default)]
    struct Written(Vec<u8>);

    impl Written {
        fn int(mut self, value: i32) -> Self {
            self.0.extend(value.to_be_bytes());
            self
        }

        fn text(self, text: &str) -> Self {
            let mut written = self.int(text.len() as i32);
            written.0.extend(text.as_bytes());
            written
        }
    }

    fn config() -> Written {
        let written = Written::default().int(3).int(2).int(1).text("key").int(1);
        let written = written.int(1).text("image").int(2).int(1).int(224);
        written.int(1).text("memory").int(1).int(-2).int(1).int(0).int(4096)
    }

    #[test]
    fn arguments_are_read_in_the_order_in_which_kotlin_writes_them() {
        let bytes = config().text("a\0\u{1F600}").0;
        let mut request = Request(&bytes);
        assert_eq!(
            request.config().unwrap(),
            Config {
                threads: 3,
                power: Power::Efficient,
                public_key: Some(b"key".to_vec()),
                copy: true,
                shapes: [("image".to_owned(), vec![1, 224])].into(),
                limits: [("memory".to_owned(), 0x1_ffff_fffe)].into(),
                expert_budget: Some(4096),
            }
        );
        assert_eq!(request.text().unwrap(), "a\0\u{1F600}");
        assert!(request.0.is_empty());

        let mut bytes = Written::default().int(1).int(1);
        bytes.0.extend(0.25f32.to_be_bytes());
        let bytes = bytes.int(2).text("cat").text("").int(0).int(0).int(1).text("cat\ndog").0;
        assert_eq!(
            Request(&bytes).options().unwrap(),
            ClassifierOptions {
                activation: Some(Activation::Sigmoid),
                threshold: Some(0.25),
                allow: vec!["cat".into(), String::new()],
                labels: Some("cat\ndog".into()),
                ..ClassifierOptions::default()
            }
        );
    }

    #[test]
    fn truncated_or_impossible_requests_are_errors() {
        let whole = config().0;
        for length in 0..whole.len() {
            assert_eq!(Request(&whole[..length]).config().unwrap_err().code(), "internal", "{length} bytes");
        }
        for wrong in [Written::default().int(-1), Written::default().int(1).int(3), Written::default().int(1).int(-1)] {
            assert!(Request(&wrong.0).config().is_err());
        }
        assert!(Request(&Written::default().int(3).0).options().is_err());
        assert!(Request(&Written::default().int(i32::MAX).0).text().is_err());
        assert!(Request(&Written::default().int(i32::MAX).0).list(Request::int).is_err());
        assert!(Request(&[0, 0, 0, 1, 0xff]).text().is_err(), "not UTF-8");
    }

    #[test]
    fn a_reply_holds_the_result_or_the_error() {
        let answered = Reply::of(|reply| {
            reply.text("ü");
            reply.long(-2);
            Ok(())
        });
        assert_eq!(answered, [&[0, 0, 0, 0, 0, 0, 0, 2][..], "ü".as_bytes(), &(-2i64).to_be_bytes()].concat());
        let refused = Reply::of(|reply| {
            reply.text("half a result");
            Err(SkipstoneError::Frame { code: "frame".into(), message: "why".into() })
        });
        assert_eq!(refused, Written::default().int(4).text("frame").text("why").0);
    }
}
