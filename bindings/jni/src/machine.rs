//! The functions of the Java virtual machine that the library calls, made safe.
//!
//! There are seven of them, so they are called through the machine's own table (`jni-sys`). A wrapper for the whole
//! interface, which looks up class loaders and exceptions by name, is a twentieth of the library.

use std::any::Any;
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};

use jni_sys::{JNIEnv, jint, jobject};

use crate::wire::Area;

/// The machine, as it passes itself to a native method: for the thread and the length of that call.
#[repr(transparent)]
pub struct Machine(*mut JNIEnv);

/// A reference that the machine passes to a native method: good for the length of that call, or null.
#[repr(transparent)]
pub struct Reference(jobject);

/// Calls a function of the machine's table by its name.
///
/// Safe to expand where the arguments are references of the kind that the function asks for: `Machine` and `Reference`
/// are made by the machine alone, so that the table is there and references are live.
macro_rules! call {
    ($machine:expr, $function:ident $(, $argument:expr)*) => {
        ((**$machine.0).v1_4.$function)($machine.0 $(, $argument)*)
    };
}

impl Machine {
    /// What `body` returns. A panic becomes a pending `RuntimeException`, and the result 0.
    pub(crate) fn guard(&self, body: impl FnOnce() -> jint) -> jint {
        // Nothing that a panic leaves half done is seen again, but for the buffers of the call, which are bytes.
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
            self.throw(c"java/lang/RuntimeException", message(&*panic));
            0
        })
    }

    /// Makes an exception pending: it is thrown when the native method returns.
    pub(crate) fn throw(&self, class: &CStr, message: &str) {
        // Escaped, a text is ASCII without a zero byte, which is the machine's own UTF-8 too.
        let text = CString::new(message.escape_default().to_string()).unwrap_or_default();
        // SAFETY: both texts end in a zero byte; without the class an exception that says so is pending already.
        unsafe {
            let class = call!(self, FindClass, class.as_ptr());
            if !class.is_null() {
                call!(self, ThrowNew, class, text.as_ptr());
            }
        }
    }

    /// Where a direct buffer lies; nothing for a buffer on Java's heap, or none.
    pub(crate) fn area(&self, buffer: &Reference) -> Option<Area> {
        if buffer.is_null() {
            return None;
        }
        // SAFETY: a live reference, of a `ByteBuffer` by the signatures of the native methods.
        let (address, length) =
            unsafe { (call!(self, GetDirectBufferAddress, buffer.0), call!(self, GetDirectBufferCapacity, buffer.0)) };
        let length = u64::try_from(length).ok()?;
        (!address.is_null()).then_some(Area { address: address as u64, length })
    }

    /// Where each of an array's direct buffers lies, as [`Machine::area`] has it.
    pub(crate) fn areas(&self, buffers: &Reference) -> Vec<Option<Area>> {
        if buffers.is_null() {
            return Vec::new();
        }
        // SAFETY: a live reference, of an array of `ByteBuffer`s by the signatures of the native methods.
        let length = unsafe { call!(self, GetArrayLength, buffers.0) };
        let area = |index| {
            // SAFETY: as above, and the index is one of the array's.
            let buffer = Reference(unsafe { call!(self, GetObjectArrayElement, buffers.0, index) });
            let area = self.area(&buffer);
            // SAFETY: a reference that this call made, and that nothing uses any more.
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

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
