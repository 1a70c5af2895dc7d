//! Safe wrappers for the functions of the Java virtual machine (JVM) that the library calls.
//!
//! There are a dozen, so they are called through the JVM's function table (`jni-sys`). A wrapper for the whole
//! interface, with class loaders and exceptions looked up by name, would be a twentieth of the library.

use std::ffi::{CStr, c_void};
use std::ptr;

use jni_sys::{JNI_OK, JNI_VERSION_1_6, JNIEnv, JNINativeMethod, JavaVM, jint, jobject};
use skipstone_ffi::{Result, SkipstoneError};

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
    /// The JVM on the thread that loads the library; `None` if it is older than version 1.6.
    ///
    /// # Safety
    /// `machine` is what the JVM passes to `JNI_OnLoad`, and is used until that returns.
    pub(crate) unsafe fn loading(machine: *mut JavaVM) -> Option<Self> {
        let mut environment = ptr::null_mut();
        // SAFETY: the JVM's own table, as the caller promises, and room for a pointer.
        let status = unsafe { ((**machine).v1_2.GetEnv)(machine, &raw mut environment, JNI_VERSION_1_6) };
        (status == JNI_OK).then_some(Self(environment.cast()))
    }

    /// Binds the native methods of a class to functions. On failure an exception is pending.
    ///
    /// # Safety
    /// Each function takes and returns what its signature says, after the JVM and the object or class.
    pub(crate) unsafe fn register(&self, class: &CStr, methods: &[Method]) -> bool {
        let native = |method: &Method| JNINativeMethod {
            name: method.name.as_ptr().cast_mut(),
            signature: method.signature.as_ptr().cast_mut(),
            fnPtr: method.function.cast_mut(),
        };
        let methods: Vec<_> = methods.iter().map(native).collect();
        // SAFETY: the names and signatures end in a NUL byte and are not written; the functions fit, as the caller
        // promises; the JVM copies all of it.
        unsafe {
            let class = call!(self, FindClass, class.as_ptr());
            !class.is_null() && call!(self, RegisterNatives, class, methods.as_ptr(), methods.len() as jint) == JNI_OK
        }
    }

    /// Makes an exception pending: it is thrown when the native method returns.
    pub(crate) fn throw(&self, class: &CStr, message: &CStr) {
        // SAFETY: both strings end in a NUL byte; if the class is not found, the JVM has already made an exception
        // pending.
        unsafe {
            let class = call!(self, FindClass, class.as_ptr());
            if !class.is_null() {
                call!(self, ThrowNew, class, message.as_ptr());
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

    /// The bytes of a direct buffer, which must not change while they are used.
    ///
    /// # Errors
    /// `Input` for a null buffer or one on the Java heap.
    pub(crate) fn bytes<'a>(&self, buffer: &'a Reference) -> Result<&'a [u8]> {
        let area = direct(self.area(buffer))?;
        // SAFETY: the JVM states that these bytes are a direct buffer's, which the caller's reference keeps alive;
        // Kotlin's callers promise not to change them until the call returns.
        Ok(unsafe { std::slice::from_raw_parts(area.address as *const u8, area.length as usize) })
    }

    /// A copy of a byte array; empty for null.
    pub(crate) fn copied(&self, array: &Reference) -> Vec<u8> {
        if array.is_null() {
            return Vec::new();
        }
        // SAFETY: a live reference; the native methods' signatures say that it is a byte array.
        let length = unsafe { call!(self, GetArrayLength, array.0) };
        let mut bytes = vec![0; length as usize];
        // SAFETY: as above, and `bytes` has room for the whole array.
        unsafe { call!(self, GetByteArrayRegion, array.0, 0, length, bytes.as_mut_ptr().cast()) };
        bytes
    }

    /// A new byte array. If there is no memory for it, null, with an `OutOfMemoryError` pending.
    pub(crate) fn array(&self, bytes: &[u8]) -> Reference {
        let length = jint::try_from(bytes.len()).unwrap_or(jint::MAX);
        // SAFETY: an array that the JVM just made, of this length, and at least as many bytes.
        unsafe {
            let array = call!(self, NewByteArray, length);
            if !array.is_null() {
                call!(self, SetByteArrayRegion, array, 0, length, bytes.as_ptr().cast());
            }
            Reference(array)
        }
    }

    /// Stores a new direct buffer over `area` in an array. Whoever uses it must not outlive the bytes.
    ///
    /// # Errors
    /// `Internal` if the JVM has no memory for it.
    pub(crate) fn set_direct(&self, buffers: &Reference, index: jint, area: Area) -> Result<()> {
        // SAFETY: a live array of `ByteBuffer`s, as the native methods' signatures say, that the caller made long enough;
        // the JVM reads and writes none of the bytes here. This call created the reference that it deletes.
        let made = unsafe {
            let buffer = call!(self, NewDirectByteBuffer, area.address as *mut c_void, area.length.cast_signed());
            if buffer.is_null() {
                call!(self, ExceptionClear);
                false
            } else {
                call!(self, SetObjectArrayElement, buffers.0, index, buffer);
                call!(self, DeleteLocalRef, buffer);
                true
            }
        };
        let refused = || SkipstoneError::Internal { code: "internal".into(), message: "no memory for a buffer".into() };
        if made { Ok(()) } else { Err(refused()) }
    }

    /// The JVM and a reference as functions of the system take them.
    pub(crate) fn pointers(&self, reference: &Reference) -> (*mut c_void, *mut c_void) {
        (self.0.cast(), reference.0.cast())
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

/// A native method of a class: its name and signature in Java, and the function that implements it.
pub(crate) struct Method {
    pub name: &'static CStr,
    pub signature: &'static CStr,
    pub function: *const c_void,
}

/// The direct buffer that was expected.
///
/// # Errors
/// `Input` for a null buffer or one on the Java heap.
pub(crate) fn direct(area: Option<Area>) -> Result<Area> {
    area.ok_or_else(|| SkipstoneError::Input {
        code: "input.buffer".into(),
        message: "a buffer is not direct: ByteBuffer.allocateDirect makes one".into(),
    })
}
