//! `libskipstone.so`: everything that the Android library loads.
//!
//! Kotlin's classes `Native` and `NativeObject` declare the functions of this library, which registers them when it is
//! loaded. The calls that an app makes for every frame take direct buffers and return their result in one more; they
//! cost a tenth of a microsecond. All others take and return the bytes of [`message`].
//!
//! Objects are named by handles. A handle finds nothing once its object is closed, so no order of calls from Kotlin can
//! touch freed memory. Errors are values until Kotlin throws them; so are panics, which never leave this library.

mod hardware;
mod machine;
mod message;
mod registry;
#[cfg(test)]
mod samples;
mod wire;

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use jni_sys::{JNI_ERR, JNI_VERSION_1_6, JavaVM, jint, jlong};
use skipstone_ffi::{Model, Result, TensorAddress, guarded};

use crate::hardware::HardwarePixels;
use crate::machine::{Machine, Method, Reference, direct};
use crate::message::{Reply, Request};
use crate::registry::Object;
use crate::wire::{Area, CallBuffer, LEAST_BYTES};

/// Called by the JVM when it has loaded the library.
///
/// # Safety
/// Only the JVM calls this, with itself.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn JNI_OnLoad(machine: *mut JavaVM, _reserved: *mut c_void) -> c_int {
    // SAFETY: the JVM's own pointer, used for this call.
    let Some(machine) = (unsafe { Machine::loading(machine) }) else { return JNI_ERR };
    macro_rules! method {
        ($name:literal, $signature:literal, $function:expr) => {
            Method { name: $name, signature: $signature, function: $function as *const c_void }
        };
    }
    let makers = [
        method!(c"version", c"()[B", version),
        method!(c"openObjects", c"()J", open_objects),
        method!(c"open", c"([B)[B", open),
        method!(c"openDescriptor", c"(IJJ[B)[B", open_descriptor),
        method!(c"openBytes", c"(Ljava/nio/ByteBuffer;[B)[B", open_bytes),
        method!(c"install", c"([B)[B", install),
        method!(c"installBytes", c"(Ljava/nio/ByteBuffer;[B)[B", install_bytes),
        method!(c"convert", c"([B)[B", convert),
        method!(c"lockPixels", c"(Ljava/lang/Object;[Ljava/nio/ByteBuffer;)[B", lock_pixels),
        method!(c"close", c"(J)V", close),
    ];
    let methods = [
        method!(c"info", c"(J)[B", info),
        method!(c"classifier", c"(J[B)[B", classifier),
        method!(c"session", c"(J)[B", session),
        method!(
            c"classify",
            c"(JLjava/nio/ByteBuffer;Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;)I",
            classify
        ),
        method!(c"run", c"(J[Ljava/nio/ByteBuffer;[Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;)I", run),
        method!(c"prepare", c"(J[Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;Ljava/nio/ByteBuffer;)I", prepare),
        method!(c"cancel", c"(J)V", cancel),
        method!(c"forgetCancel", c"(J)V", forget_cancel),
        method!(c"limit", c"(J[B)[B", limit),
        method!(c"set", c"(J[B)[B", set),
        method!(c"latency", c"(J)[B", latency),
        method!(c"memory", c"(J)[B", memory),
        method!(c"startProfile", c"(J)[B", start_profile),
        method!(c"profile", c"(J)[B", profile),
    ];
    // SAFETY: the functions below have these signatures, behind the JVM and the class or object.
    let registered = unsafe {
        machine.register(c"dev/skipstone/internal/Native", &makers)
            && machine.register(c"dev/skipstone/internal/NativeObject", &methods)
    };
    if registered { JNI_VERSION_1_6 } else { JNI_ERR }
}

extern "system" fn version(machine: Machine, _class: Reference) -> Reference {
    reply(&machine, &mut |reply| {
        reply.text(&skipstone_ffi::version());
        Ok(())
    })
}

extern "system" fn open_objects(_machine: Machine, _class: Reference) -> jlong {
    skipstone_ffi::open_objects().cast_signed()
}

/// Takes a configuration and a path; returns the handle of the model.
extern "system" fn open(machine: Machine, _class: Reference, arguments: Reference) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let config = request.config()?;
        reply.long(registry::add(Object::Model(Model::open(request.text()?, config)?)));
        Ok(())
    })
}

/// Takes a configuration; returns the handle of the model.
extern "system" fn open_descriptor(
    machine: Machine,
    _class: Reference,
    fd: jint,
    offset: jlong,
    length: jlong,
    arguments: Reference,
) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let (offset, length) = (offset.cast_unsigned(), length.cast_unsigned());
        reply.long(registry::add(Object::Model(Model::open_descriptor(fd, offset, length, request.config()?)?)));
        Ok(())
    })
}

/// Takes a configuration; returns the handle of the model.
extern "system" fn open_bytes(
    machine: Machine,
    _class: Reference,
    bytes: Reference,
    arguments: Reference,
) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let model = Model::from_bytes(machine.bytes(&bytes)?, request.config()?)?;
        reply.long(registry::add(Object::Model(model)));
        Ok(())
    })
}

/// Takes a configuration and two paths, from and to; returns the handle of the model.
extern "system" fn install(machine: Machine, _class: Reference, arguments: Reference) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let config = request.config()?;
        let model = Model::install(request.text()?, request.text()?, config)?;
        reply.long(registry::add(Object::Model(model)));
        Ok(())
    })
}

/// Takes a configuration and the path to install to; returns the handle of the model.
extern "system" fn install_bytes(
    machine: Machine,
    _class: Reference,
    bytes: Reference,
    arguments: Reference,
) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let config = request.config()?;
        let model = Model::install_bytes(machine.bytes(&bytes)?, request.text()?, config)?;
        reply.long(registry::add(Object::Model(model)));
        Ok(())
    })
}

/// Takes a configuration and two paths, from and to; returns the handle of the model.
extern "system" fn convert(machine: Machine, _class: Reference, arguments: Reference) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let config = request.config()?;
        let model = Model::convert(request.text()?, request.text()?, config)?;
        reply.long(registry::add(Object::Model(model)));
        Ok(())
    })
}

/// Locks the pixels of a `HardwareBuffer` until their handle is closed. Fills the array with their planes; returns the
/// handle and a description.
extern "system" fn lock_pixels(machine: Machine, _class: Reference, buffer: Reference, planes: Reference) -> Reference {
    reply(&machine, &mut |reply| {
        let pixels = HardwarePixels::lock(&machine, &buffer)?;
        for (index, plane) in (0..).zip(pixels.planes()) {
            machine.set_direct(&planes, index, plane.area)?;
        }
        let pixels = Arc::new(pixels);
        reply.pixels(registry::add(Object::Pixels(Arc::clone(&pixels))), &pixels);
        Ok(())
    })
}

/// Closes the object of a handle, if there is one. A model lives as long as its classifiers and sessions.
extern "system" fn close(_machine: Machine, _class: Reference, handle: jlong) {
    // Nobody is there to be told of a panic.
    let _ = guarded(|| {
        match registry::remove(handle) {
            Some(Object::Classifier(classifier)) => classifier.close(),
            Some(Object::Session(session)) => session.close(),
            // Unlocks them: Kotlin closes a frame when no call reads it any more.
            Some(Object::Pixels(pixels)) => drop(pixels),
            Some(Object::Model(_)) | None => {}
        }
        Ok(())
    });
}

extern "system" fn info(machine: Machine, _this: Reference, handle: jlong) -> Reference {
    reply(&machine, &mut |reply| {
        match registry::get(handle) {
            Some(Object::Model(model)) => reply.model(&model.info()),
            Some(Object::Classifier(classifier)) => reply.classifier(&classifier.info()),
            Some(Object::Session(_) | Object::Pixels(_)) | None => return Err(registry::closed("model or classifier")),
        }
        Ok(())
    })
}

/// Takes options; returns the handle of a classifier of the model.
extern "system" fn classifier(machine: Machine, _this: Reference, handle: jlong, arguments: Reference) -> Reference {
    answer(&machine, &arguments, &mut |request, reply| {
        let classifier = registry::model(handle)?.classifier(request.options()?)?;
        reply.long(registry::add(Object::Classifier(classifier)));
        Ok(())
    })
}

/// Returns the handle of a session of the model.
extern "system" fn session(machine: Machine, _this: Reference, handle: jlong) -> Reference {
    reply(&machine, &mut |reply| {
        reply.long(registry::add(Object::Session(registry::model(handle)?.session()?)));
        Ok(())
    })
}

/// The top classes of a frame. The frame is described in the call buffer, which also receives the result.
extern "system" fn classify(
    machine: Machine,
    _this: Reference,
    handle: jlong,
    first: Reference,
    second: Reference,
    third: Reference,
    call: Reference,
) -> jint {
    let Some(mut call) = call_buffer(&machine, &call) else { return 0 };
    let answer = guarded(|| {
        let planes = [&first, &second, &third].into_iter().filter(|plane| !plane.is_null());
        let planes: Vec<Area> = planes.map(|plane| direct(machine.area(plane))).collect::<Result<_>>()?;
        let (frame, top) = call.frame(&planes)?;
        let shown = registry::classifier(handle)?.classify_frame_at(frame, top)?;
        call.answer(&shown)
    });
    answer.unwrap_or_else(|error| call.refuse(&error))
}

/// An input of a session for a frame. The frame is described in the call buffer, with the index of the input.
extern "system" fn prepare(
    machine: Machine,
    _this: Reference,
    handle: jlong,
    planes: Reference,
    tensor: Reference,
    call: Reference,
) -> jint {
    let Some(mut call) = call_buffer(&machine, &call) else { return 0 };
    let prepared = guarded(|| {
        let planes: Vec<Area> = machine.areas(&planes).into_iter().map(direct).collect::<Result<_>>()?;
        let (frame, index) = call.frame(&planes)?;
        let Area { address, length } = direct(machine.area(&tensor))?;
        registry::session(handle)?.prepare_frame_at(frame, index, TensorAddress { address, length_bytes: length })
    });
    prepared.map_or_else(|error| call.refuse(&error), |()| 0)
}

/// One run of a session, from input buffers to output buffers.
extern "system" fn run(
    machine: Machine,
    _this: Reference,
    handle: jlong,
    inputs: Reference,
    outputs: Reference,
    call: Reference,
) -> jint {
    let Some(mut call) = call_buffer(&machine, &call) else { return 0 };
    let run = guarded(|| registry::session(handle)?.run_at(tensors(&machine, &inputs)?, tensors(&machine, &outputs)?));
    run.map_or_else(|error| call.refuse(&error), |()| 0)
}

/// Calls a method that classifiers and sessions share, on the object of `$handle`.
macro_rules! either {
    ($handle:expr, $it:ident => $result:expr) => {
        match registry::get($handle) {
            Some(Object::Classifier($it)) => $result,
            Some(Object::Session($it)) => $result,
            Some(Object::Model(_) | Object::Pixels(_)) | None => Err(registry::closed("classifier or session")),
        }
    };
}

/// Stops the current run, or otherwise the next.
extern "system" fn cancel(_machine: Machine, _this: Reference, handle: jlong) {
    // A closed object has no run, and nobody is there to be told of a panic.
    let _ = guarded(|| {
        either!(handle, it => {
            it.cancel();
            Ok(())
        })
    });
}

/// Withdraws a cancellation that no run has seen.
extern "system" fn forget_cancel(_machine: Machine, _this: Reference, handle: jlong) {
    // As for `cancel`.
    let _ = guarded(|| {
        either!(handle, it => {
            it.forget_cancel();
            Ok(())
        })
    });
}

/// Takes an optional number: the most milliseconds that a later run may take.
extern "system" fn limit(machine: Machine, _this: Reference, handle: jlong, arguments: Reference) -> Reference {
    answer(&machine, &arguments, &mut |request, _| {
        let ms = request.optional(Request::number)?;
        either!(handle, it => it.set_deadline_ms(ms))
    })
}

/// Takes the name of a variable and its elements; without a name, resets the state.
extern "system" fn set(machine: Machine, _this: Reference, handle: jlong, arguments: Reference) -> Reference {
    answer(&machine, &arguments, &mut |request, _| {
        let (name, values) = (request.optional(Request::text)?, request.list(Request::number)?);
        either!(handle, it => it.set_variable(name, values))
    })
}

extern "system" fn latency(machine: Machine, _this: Reference, handle: jlong) -> Reference {
    reply(&machine, &mut |reply| {
        either!(handle, it => {
            reply.latency(&it.latency());
            Ok(())
        })
    })
}

extern "system" fn memory(machine: Machine, _this: Reference, handle: jlong) -> Reference {
    reply(&machine, &mut |reply| {
        either!(handle, it => {
            reply.memory(&it.memory());
            Ok(())
        })
    })
}

extern "system" fn start_profile(machine: Machine, _this: Reference, handle: jlong) -> Reference {
    reply(&machine, &mut |_| either!(handle, it => it.start_profile()))
}

extern "system" fn profile(machine: Machine, _this: Reference, handle: jlong) -> Reference {
    reply(&machine, &mut |reply| {
        reply.steps(&either!(handle, it => it.profile())?);
        Ok(())
    })
}

/// The reply to a call with arguments.
fn answer(
    machine: &Machine,
    arguments: &Reference,
    body: &mut dyn FnMut(&mut Request, &mut Reply) -> Result<()>,
) -> Reference {
    reply(machine, &mut |reply| body(&mut Request(&machine.copied(arguments)), reply))
}

/// The reply to a call: what `body` writes, or its error.
fn reply(machine: &Machine, body: &mut dyn FnMut(&mut Reply) -> Result<()>) -> Reference {
    machine.array(&Reply::of(|reply| guarded(|| body(reply))))
}

/// The call buffer. If there is none, an `IllegalArgumentException` is made pending, since there is nowhere to write an
/// error to.
fn call_buffer<'a>(machine: &'a Machine, buffer: &'a Reference) -> Option<CallBuffer<'a>> {
    let Some(area) = machine.area(buffer).filter(|area| area.length >= LEAST_BYTES as u64) else {
        machine.throw(c"java/lang/IllegalArgumentException", c"no call buffer");
        return None;
    };
    // SAFETY: the JVM states that these bytes are a direct buffer's, which the caller's reference keeps alive; they are
    // used until the call returns, and by this thread alone, since calls of one object wait for each other.
    let bytes = unsafe { std::slice::from_raw_parts_mut(area.address as *mut u8, area.length as usize) };
    Some(CallBuffer(bytes))
}

/// The addresses and lengths of an array of direct buffers.
///
/// # Errors
/// As for [`direct`].
fn tensors(machine: &Machine, buffers: &Reference) -> Result<Vec<TensorAddress>> {
    let tensor = |area: Area| TensorAddress { address: area.address, length_bytes: area.length };
    machine.areas(buffers).into_iter().map(|area| direct(area).map(tensor)).collect()
}
