//! Safe wrappers for the functions of the Java virtual machine (JVM) that the library calls.
//!
//! There are only seven, so they are called through the JVM's function table (`jni-sys`). A wrapper for the whole
//! interface, with class loaders and exceptions looked up by name, would be a twentieth of the library.

use std::any::Any;
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};

use jni_sys::{JNIEnv, jint, jobject};

use crate::wire::Area;

/// The JVM as a native method receives it: valid on that thread and for that call.
#[repr(transparent)]
pub struct Machine(*mut JNIEnv);

/// A reference that the JVM passes to a native method: valid for that call, or null.
#[repr(transparent)]
pub struct Reference(jobject);

/// Calls a function of the JVM's function table by name.
///
/// Sound if the arguments are references of the kind that the function expects. Only the JVM makes a `Machine` or a
/// `Reference`, so the table is present and references are live.
macro_rules! call {
    ($machine:expr, $function:ident $(, $argument:expr)*) => {
        ((**$machine.0).v1_4.$function)($machine.0 $(, $argument)*)
    };
}

impl Machine {
    /// Returns what `body` returns. A panic becomes a pending `RuntimeException`, and the result is 0.
    pub(crate) fn guard(&self, body: impl FnOnce() -> jint) -> jint {
        // After a panic, nothing half done is seen again except the buffers of the call, which are plain bytes.
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
            self.throw(c"java/lang/RuntimeException", message(&*panic));
            0
        })
    }

    /// Makes an exception pending: it is thrown when the native method returns.
    pub(crate) fn throw(&self, class: &CStr, message: &str) {
        // Escaped text is ASCII without NUL, which is the same in the JVM's modified UTF-8.
        let text = CString::new(message.escape_default().to_string()).unwrap_or_default();
        // SAFETY: both strings end in a NUL byte; if the class is not found, the JVM has already made an exception
        // pending.
        unsafe {
            let class = call!(self, FindClass, class.as_ptr());
            if !class.is_null() {
                call!(self, ThrowNew, class, text.as_ptr());
            }
        }
    }

    /// The address and length of a direct buffer, or `None` for a null buffer or one on the Java heap.
    pub(crate) fn area(&self, buffer: &Reference) -> Option<Area> {
        if buffer.is_null() {
            return None;
        }
        // SAFETY: a live reference; the native methods' signatures say that it is a `ByteBuffer`.
        let (address, length) =
            unsafe { (call!(self, GetDirectBufferAddress, buffer.0), call!(self, GetDirectBufferCapacity, buffer.0)) };
        let length = u64::try_from(length).ok()?;
        (!address.is_null()).then_some(Area { address: address as u64, length })
    }

    /// The address and length of each direct buffer of an array, as [`Machine::area`] returns them.
    pub(crate) fn areas(&self, buffers: &Reference) -> Vec<Option<Area>> {
        if buffers.is_null() {
            return Vec::new();
        }
        // SAFETY: a live reference; the native methods' signatures say that it is an array of `ByteBuffer`s.
        let length = unsafe { call!(self, GetArrayLength, buffers.0) };
        let area = |index| {
            // SAFETY: as above, and the index is within the array.
            let buffer = Reference(unsafe { call!(self, GetObjectArrayElement, buffers.0, index) });
            let area = self.area(&buffer);
            // SAFETY: this call created the reference, and nothing uses it any more.
            unsafe { call!(self, DeleteLocalRef, buffer.0) };
            area
        };
        (0..length).map(area).collect()
    }
}

impl Reference {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
