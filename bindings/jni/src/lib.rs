//! `libskipstone.so`: everything that the Android library loads.
//!
//! Opening, closing and figures go through the facade's generated bindings, which the library
//! exports as they are. The two calls that an app makes for every frame go this way instead:
//! direct buffers in, one direct buffer out, a tenth of a microsecond where the generated ones
//! take ten.
//!
//! An object is named by its handle, which finds nothing once the object is closed, so no order
//! of calls on the other side can touch memory that is gone.

mod machine;
mod wire;

use jni_sys::{jint, jlong};
use skipstone_ffi::{Classifier, Result, Session, SkipstoneError, TensorAddress};

use crate::machine::{Machine, Reference};
use crate::wire::{Area, Call, LEAST_BYTES};

skipstone_ffi::uniffi_reexport_scaffolding!();

/// `Native.classify`: the classes that a frame shows, as the call buffer describes it and where it is told them.
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

/// The call buffer, or a pending `IllegalArgumentException`: there is nowhere else to write the error to.
fn call_buffer<'a>(machine: &'a Machine, buffer: &'a Reference) -> Option<Call<'a>> {
    let Some(area) = machine.area(buffer).filter(|area| area.length >= LEAST_BYTES as u64) else {
        machine.throw(c"java/lang/IllegalArgumentException", "no call buffer");
        return None;
    };
    // SAFETY: the machine's word that these bytes belong to a direct buffer, which the caller's reference keeps; they
    // are used until the call returns, and by this thread alone, since each has its own.
    let bytes = unsafe { std::slice::from_raw_parts_mut(area.address as *mut u8, area.length as usize) };
    Some(Call(bytes))
}

/// Where a direct buffer lies.
///
/// # Errors
/// `Input` for a buffer on Java's heap, or none.
fn direct(area: Option<Area>) -> Result<Area> {
    area.ok_or_else(|| SkipstoneError::Input {
        code: "input.buffer".into(),
        message: "a buffer is not direct: ByteBuffer.allocateDirect makes one".into(),
    })
}

/// Where the buffers of an array lie.
///
/// # Errors
/// As for [`direct`].
fn tensors(machine: &Machine, buffers: &Reference) -> Result<Vec<TensorAddress>> {
    let tensor = |area: Area| TensorAddress { address: area.address, length_bytes: area.length };
    machine.areas(buffers).into_iter().map(|area| direct(area).map(tensor)).collect()
}
