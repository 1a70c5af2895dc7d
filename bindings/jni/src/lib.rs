//! `libskipstone.so`: everything that the Android library loads.
//!
//! Opening, closing and figures go through the facade's generated bindings, which the library
//! exports as they are. The two calls that an app makes for every frame go this way instead:
//! direct buffers in, one direct buffer out, a tenth of a microsecond where the generated ones
//! take ten.
//!
//! An object is named by its handle, which finds nothing once the object is closed, so no order
//! of calls on the other side can touch memory that is gone.

mod wire;

use jni::errors::{Error, ThrowRuntimeExAndDefault};
use jni::objects::{JByteBuffer, JClass, JObjectArray};
use jni::sys::{jint, jlong};
use jni::{Env, EnvUnowned, jni_str};
use skipstone_ffi::{Classifier, Result, Session, SkipstoneError, TensorAddress};

use crate::wire::{Area, Call, LEAST_BYTES};

skipstone_ffi::uniffi_reexport_scaffolding!();

/// `Native.classify`: the classes that a frame shows, as the call buffer describes it and where it is told them.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_skipstone_internal_Native_classify<'local>(
    mut env: EnvUnowned<'local>,
    _class: JClass<'local>,
    handle: jlong,
    first: JByteBuffer<'local>,
    second: JByteBuffer<'local>,
    third: JByteBuffer<'local>,
    call: JByteBuffer<'local>,
) -> jint {
    env.with_env(|env| {
        let mut call = call_buffer(env, &call)?;
        let planes = [&first, &second, &third].into_iter().filter(|plane| !plane.is_null());
        let planes: Result<Vec<Area>> = planes.map(|plane| area(env, plane)).collect();
        let answer = planes.and_then(|planes| {
            let (frame, top) = call.frame(&planes)?;
            let shown = Classifier::find(handle.cast_unsigned())?.classify_frame_at(frame, top)?;
            call.answer(&shown)
        });
        Ok::<jint, Error>(answer.unwrap_or_else(|error| call.refuse(&error)))
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

/// `Native.run`: one run of a session, from input buffers to output buffers.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_skipstone_internal_Native_run<'local>(
    mut env: EnvUnowned<'local>,
    _class: JClass<'local>,
    handle: jlong,
    inputs: JObjectArray<'local, JByteBuffer<'local>>,
    outputs: JObjectArray<'local, JByteBuffer<'local>>,
    call: JByteBuffer<'local>,
) -> jint {
    env.with_env(|env| {
        let mut call = call_buffer(env, &call)?;
        let (inputs, outputs) = (tensors(env, &inputs)?, tensors(env, &outputs)?);
        let run = || Session::find(handle.cast_unsigned())?.run_at(inputs?, outputs?);
        Ok::<jint, Error>(run().map_or_else(|error| call.refuse(&error), |()| 0))
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

/// The call buffer, or a pending `IllegalArgumentException`: there is nowhere else to write the error to.
fn call_buffer<'a>(env: &mut Env<'_>, buffer: &JByteBuffer<'_>) -> Result<Call<'a>, Error> {
    match area(env, buffer) {
        Ok(Area { address, length }) if length >= LEAST_BYTES as u64 => {
            // SAFETY: the machine's word that these bytes belong to a direct buffer, which the caller's reference
            // keeps; they are used until the call returns, and by this thread alone, since each has its own.
            let bytes = unsafe { std::slice::from_raw_parts_mut(address as *mut u8, length as usize) };
            Ok(Call(bytes))
        }
        _ => {
            env.throw_new(jni_str!("java/lang/IllegalArgumentException"), jni_str!("no call buffer"))?;
            Err(Error::JavaException)
        }
    }
}

/// Where a direct buffer lies.
///
/// # Errors
/// `Input` for a buffer on Java's heap, or none.
fn area(env: &Env<'_>, buffer: &JByteBuffer<'_>) -> Result<Area> {
    let found = env.get_direct_buffer_address(buffer).and_then(|address| {
        let length = env.get_direct_buffer_capacity(buffer)?;
        Ok(Area { address: address as u64, length: length as u64 })
    });
    found.map_err(|_| SkipstoneError::Input {
        code: "input.buffer".into(),
        message: "a buffer is not direct: ByteBuffer.allocateDirect makes one".into(),
    })
}

/// Where the buffers of an array lie; the outer error is the machine's.
fn tensors<'local>(
    env: &mut Env<'local>,
    buffers: &JObjectArray<'local, JByteBuffer<'local>>,
) -> Result<Result<Vec<TensorAddress>>, Error> {
    let length = buffers.len(env)?;
    let mut areas = Vec::with_capacity(length);
    for index in 0..length {
        let buffer = buffers.get_element(env, index)?;
        areas.push(area(env, &buffer));
    }
    let tensor = |area: Area| TensorAddress { address: area.address, length_bytes: area.length };
    Ok(areas.into_iter().map(|area| area.map(tensor)).collect())
}
