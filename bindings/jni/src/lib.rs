//! `libskipstone.so`: everything that the Android library loads.
//!
//! Opening, closing and statistics go through the facade's generated bindings, which this library re-exports. The two
//! calls that an app makes for every frame are written by hand instead: direct buffers in, one direct buffer out. They
//! cost a tenth of a microsecond; the generated calls cost ten.
//!
//! Objects are named by handles. A handle finds nothing once its object is closed, so no order of calls from Kotlin can
//! touch freed memory.

mod machine;
mod wire;

use jni_sys::{jint, jlong};
use skipstone_ffi::{Classifier, Result, Session, SkipstoneError, TensorAddress};

use crate::machine::{Machine, Reference};
use crate::wire::{Area, CallBuffer, LEAST_BYTES};

skipstone_ffi::uniffi_reexport_scaffolding!();

/// `Native.classify`: the top classes of a frame. The frame is described in the call buffer, which also receives the
/// result.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_skipstone_internal_Native_classify(
    machine: Machine,
    _class: Reference,
    handle: jlong,
    first: Reference,
    second: Reference,
    third: Reference,
    call: Reference,
) -> jint {
    machine.guard(|| {
        let Some(mut call) = call_buffer(&machine, &call) else { return 0 };
        let planes = [&first, &second, &third].into_iter().filter(|plane| !plane.is_null());
        let planes: Result<Vec<Area>> = planes.map(|plane| direct(machine.area(plane))).collect();
        let answer = planes.and_then(|planes| {
            let (frame, top) = call.frame(&planes)?;
            let shown = Classifier::find(handle.cast_unsigned())?.classify_frame_at(frame, top)?;
            call.answer(&shown)
        });
        answer.unwrap_or_else(|error| call.refuse(&error))
    })
}

/// `Native.run`: one run of a session, from input buffers to output buffers.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_skipstone_internal_Native_run(
    machine: Machine,
    _class: Reference,
    handle: jlong,
    inputs: Reference,
    outputs: Reference,
    call: Reference,
) -> jint {
    machine.guard(|| {
        let Some(mut call) = call_buffer(&machine, &call) else { return 0 };
        let run = || {
            let session = Session::find(handle.cast_unsigned())?;
            session.run_at(tensors(&machine, &inputs)?, tensors(&machine, &outputs)?)
        };
        run().map_or_else(|error| call.refuse(&error), |()| 0)
    })
}

/// The call buffer. If there is none, an `IllegalArgumentException` is made pending, since there is nowhere to write an
/// error to.
fn call_buffer<'a>(machine: &'a Machine, buffer: &'a Reference) -> Option<CallBuffer<'a>> {
    let Some(area) = machine.area(buffer).filter(|area| area.length >= LEAST_BYTES as u64) else {
        machine.throw(c"java/lang/IllegalArgumentException", "no call buffer");
        return None;
    };
    // SAFETY: the JVM states that these bytes are a direct buffer's, which the caller's reference keeps alive; they are
    // used until the call returns, and by this thread alone, since each thread has its own call buffer.
    let bytes = unsafe { std::slice::from_raw_parts_mut(area.address as *mut u8, area.length as usize) };
    Some(CallBuffer(bytes))
}

/// The address and length of a direct buffer.
///
/// # Errors
/// `Input` for a null buffer or one on the Java heap.
fn direct(area: Option<Area>) -> Result<Area> {
    area.ok_or_else(|| SkipstoneError::Input {
        code: "input.buffer".into(),
        message: "a buffer is not direct: ByteBuffer.allocateDirect makes one".into(),
    })
}

/// The addresses and lengths of an array of direct buffers.
///
/// # Errors
/// As for [`direct`].
fn tensors(machine: &Machine, buffers: &Reference) -> Result<Vec<TensorAddress>> {
    let tensor = |area: Area| TensorAddress { address: area.address, length_bytes: area.length };
    machine.areas(buffers).into_iter().map(|area| direct(area).map(tensor)).collect()
}
