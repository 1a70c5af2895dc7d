//! Android's hardware buffers: pixels in memory that cameras, decoders and the graphics processor share.
//!
//! The system's functions for them came with Android 8, and that for the planes of YUV with Android 10. The library runs
//! on Android 7, where it could not be loaded if it was linked with them, so they are looked up by name when an app first
//! needs them. Going through a `Bitmap` instead would take Android 10, copy the pixels, and have no YUV.
//!
//! A buffer stays locked for reading, and allocated, from the making of its frame to the frame's end.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use skipstone_ffi::{FrameFormat, Result, SkipstoneError};

use crate::machine::{Machine, Reference};
use crate::wire::Area;

/// The pixels of a hardware buffer, locked for reading until they are dropped.
pub(crate) struct HardwarePixels {
    functions: &'static Functions,
    buffer: Buffer,
    pub format: FrameFormat,
    pub width: u32,
    pub height: u32,
    planes: [LockedPlane; 3],
    count: usize,
}

/// A plane of locked pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockedPlane {
    pub area: Area,
    pub row_stride: u32,
    pub pixel_stride: u32,
}

// SAFETY: the system counts the references of a hardware buffer, and any thread may unlock and release it; the planes are
// only read.
unsafe impl Send for HardwarePixels {}
// SAFETY: as above; no function is called through a shared reference.
unsafe impl Sync for HardwarePixels {}

/// `AHardwareBuffer *`
type Buffer = *mut c_void;

/// `AHardwareBuffer_Desc`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Description {
    width: u32,
    height: u32,
    layers: u32,
    format: u32,
    usage: u64,
    /// In pixels.
    stride: u32,
    reserved: u32,
    reserved_too: u64,
}

/// `AHardwareBuffer_Plane`
#[repr(C)]
#[derive(Clone, Copy)]
struct SystemPlane {
    data: *mut c_void,
    pixel_stride: u32,
    row_stride: u32,
}

/// `AHardwareBuffer_Planes`
#[repr(C)]
struct SystemPlanes {
    count: u32,
    planes: [SystemPlane; 4],
}

/// The functions `AHardwareBuffer_*`. Those that return an integer return 0 if they succeed.
struct Functions {
    /// Takes the JVM and a `HardwareBuffer`; null if that is closed.
    from_hardware_buffer: unsafe extern "C" fn(*mut c_void, *mut c_void) -> Buffer,
    acquire: unsafe extern "C" fn(Buffer),
    release: unsafe extern "C" fn(Buffer),
    describe: unsafe extern "C" fn(Buffer, *mut Description),
    /// Takes the usage, a fence and a rectangle; writes the address.
    lock: unsafe extern "C" fn(Buffer, u64, i32, *const c_void, *mut *mut c_void) -> c_int,
    /// The same for several planes, since Android 10.
    lock_planes: Option<unsafe extern "C" fn(Buffer, u64, i32, *const c_void, *mut SystemPlanes) -> c_int>,
    /// Waits until it is unlocked if the fence is null.
    unlock: unsafe extern "C" fn(Buffer, *mut i32) -> c_int,
}

/// `AHARDWAREBUFFER_USAGE_CPU_READ_OFTEN`
const READ: u64 = 3;
const NO_FENCE: i32 = -1;

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// `RTLD_LAZY`, which is the same number on every system.
const LAZY: c_int = 1;

impl Functions {
    /// The system's functions; `None` before Android 8 and on other systems.
    fn system() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
        FOUND.get_or_init(Self::find).as_ref()
    }

    fn find() -> Option<Self> {
        // SAFETY: the names end in a NUL byte. Both are libraries of Android that every app has loaded or may load.
        let libraries = [c"libandroid.so", c"libnativewindow.so"].map(|name| unsafe { dlopen(name.as_ptr(), LAZY) });
        let find = |name: &CStr| {
            let found = libraries.iter().filter(|library| !library.is_null()).map(|&library| {
                // SAFETY: an open library, and a name that ends in a NUL byte.
                unsafe { dlsym(library, name.as_ptr()) }
            });
            found.into_iter().find(|function| !function.is_null())
        };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the function of this name has the type of the field that it is stored in, by Android's header
                // `hardware_buffer.h`.
                find($name).map(|address| unsafe { std::mem::transmute(address) })
            };
        }
        Some(Self {
            from_hardware_buffer: function!(c"AHardwareBuffer_fromHardwareBuffer")?,
            acquire: function!(c"AHardwareBuffer_acquire")?,
            release: function!(c"AHardwareBuffer_release")?,
            describe: function!(c"AHardwareBuffer_describe")?,
            lock: function!(c"AHardwareBuffer_lock")?,
            lock_planes: function!(c"AHardwareBuffer_lockPlanes"),
            unlock: function!(c"AHardwareBuffer_unlock")?,
        })
    }
}

impl HardwarePixels {
    /// Locks a `HardwareBuffer`.
    ///
    /// # Errors
    /// `Unsupported` for a system without hardware buffers, or a format that frames do not have; `Frame` for a buffer
    /// that is closed or cannot be read.
    pub(crate) fn lock(machine: &Machine, buffer: &Reference) -> Result<Self> {
        let (machine, buffer) = machine.pointers(buffer);
        let locked = Functions::system().ok_or(MISSING).and_then(|functions| {
            // SAFETY: the JVM and a reference of this call, which Kotlin declares to be a `HardwareBuffer`.
            let buffer = unsafe { (functions.from_hardware_buffer)(machine, buffer) };
            // SAFETY: the caller's reference keeps the buffer alive until this returns.
            unsafe { Self::of(functions, buffer) }
        });
        locked.map_err(|(is_unsupported, why)| {
            let message = why.to_owned();
            if is_unsupported {
                SkipstoneError::Unsupported { code: "frame.format".into(), message }
            } else {
                SkipstoneError::Frame { code: "frame".into(), message }
            }
        })
    }

    /// Its planes: one, or luma, blue and red chroma.
    pub(crate) fn planes(&self) -> &[LockedPlane] {
        self.planes.get(..self.count).unwrap_or(&[])
    }

    /// Locks a buffer, which may be null.
    ///
    /// # Safety
    /// The buffer is live until this returns.
    unsafe fn of(functions: &'static Functions, buffer: Buffer) -> Result<Self, Refusal> {
        if buffer.is_null() {
            return Err((false, "the hardware buffer is closed"));
        }
        let mut it = Description::default();
        // SAFETY: live, as the caller promises, and room for the description.
        unsafe { (functions.describe)(buffer, &raw mut it) };
        let (format, pixel_bytes) = match it.format {
            // R8G8B8A8, R8G8B8X8
            1 | 2 => (FrameFormat::Rgba, 4),
            // R8G8B8
            3 => (FrameFormat::Rgb, 3),
            // R8
            0x38 => (FrameFormat::Gray, 1),
            // Y8Cb8Cr8_420
            0x23 => (FrameFormat::Yuv420, 1),
            0x36 => (FrameFormat::P010, 2),
            0x3c => (FrameFormat::P210, 2),
            _ => return Err((true, "frames do not have the format of this hardware buffer")),
        };
        let mut found = SystemPlanes { count: 1, planes: [NO_PLANE; 4] };
        let is_planar = matches!(format, FrameFormat::Yuv420 | FrameFormat::P010 | FrameFormat::P210);
        let status = if is_planar {
            let lock = functions.lock_planes.ok_or((true, "hardware buffers of YUV can be read since Android 10"))?;
            // SAFETY: live, as the caller promises, and room for the planes.
            unsafe { lock(buffer, READ, NO_FENCE, ptr::null(), &raw mut found) }
        } else {
            let plane = &mut found.planes[0];
            (plane.pixel_stride, plane.row_stride) = (pixel_bytes, it.stride.saturating_mul(pixel_bytes));
            // SAFETY: live, as the caller promises, and room for an address.
            unsafe { (functions.lock)(buffer, READ, NO_FENCE, ptr::null(), &raw mut plane.data) }
        };
        if status != 0 {
            return Err((false, "the hardware buffer cannot be read: create it with the usage CPU_READ_OFTEN"));
        }
        // SAFETY: live, as the caller promises.
        unsafe { (functions.acquire)(buffer) };
        // From here on it is unlocked and released when it is dropped.
        let count = if is_planar { 3 } else { 1 };
        let (width, height) = (it.width, it.height);
        let mut pixels = Self { functions, buffer, format, width, height, planes: [NO_PIXELS; 3], count };
        if found.count as usize != count || found.planes[..count].iter().any(|plane| plane.data.is_null()) {
            return Err((true, "the hardware buffer has other planes than its format"));
        }
        for (index, (to, plane)) in pixels.planes.iter_mut().zip(&found.planes[..count]).enumerate() {
            let is_chroma = index > 0;
            let columns = if is_chroma { width.div_ceil(2) } else { width };
            let rows = if is_chroma && format != FrameFormat::P210 { height.div_ceil(2) } else { height };
            let last = |count: u32, stride: u32| u64::from(count.saturating_sub(1)) * u64::from(stride);
            let length = last(rows, plane.row_stride) + last(columns, plane.pixel_stride) + u64::from(pixel_bytes);
            to.area = Area { address: plane.data as u64, length };
            (to.row_stride, to.pixel_stride) = (plane.row_stride, plane.pixel_stride);
        }
        Ok(pixels)
    }
}

/// Why a buffer is not locked; true if its kind never is.
type Refusal = (bool, &'static str);

const MISSING: Refusal = (true, "this system has no hardware buffers: they came with Android 8");
const NO_PLANE: SystemPlane = SystemPlane { data: ptr::null_mut(), pixel_stride: 0, row_stride: 0 };
const NO_PIXELS: LockedPlane = LockedPlane { area: Area { address: 0, length: 0 }, row_stride: 0, pixel_stride: 0 };

impl Drop for HardwarePixels {
    fn drop(&mut self) {
        // SAFETY: this object has locked and acquired the buffer, once each, and nothing reads the planes any more.
        unsafe {
            (self.functions.unlock)(self.buffer, ptr::null_mut());
            (self.functions.release)(self.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer that counts what is done to it.
    struct Fake {
        description: Description,
        status: c_int,
        planes: Vec<SystemPlane>,
        locks: i32,
        references: i32,
    }

    fn fake(buffer: Buffer) -> &'static mut Fake {
        // SAFETY: the tests pass pointers to a `Fake` that outlives the call, and use it on one thread.
        unsafe { &mut *buffer.cast() }
    }

    unsafe extern "C" fn from_hardware_buffer(_machine: *mut c_void, buffer: *mut c_void) -> Buffer {
        buffer
    }

    unsafe extern "C" fn acquire(buffer: Buffer) {
        fake(buffer).references += 1;
    }

    unsafe extern "C" fn release(buffer: Buffer) {
        fake(buffer).references -= 1;
    }

    unsafe extern "C" fn describe(buffer: Buffer, to: *mut Description) {
        // SAFETY: the caller has room for a description.
        unsafe { to.write(fake(buffer).description) };
    }

    unsafe extern "C" fn lock(buffer: Buffer, usage: u64, fence: i32, _: *const c_void, to: *mut *mut c_void) -> c_int {
        let it = fake(buffer);
        assert_eq!((usage, fence), (READ, NO_FENCE));
        if it.status == 0 {
            it.locks += 1;
            // SAFETY: the caller has room for an address.
            unsafe { to.write(it.planes[0].data) };
        }
        it.status
    }

    unsafe extern "C" fn planes(buffer: Buffer, _: u64, _: i32, _: *const c_void, to: *mut SystemPlanes) -> c_int {
        let it = fake(buffer);
        if it.status == 0 {
            it.locks += 1;
            // SAFETY: the caller has room for the planes.
            let to = unsafe { &mut *to };
            to.count = it.planes.len() as u32;
            to.planes[..it.planes.len()].copy_from_slice(&it.planes);
        }
        it.status
    }

    unsafe extern "C" fn unlock(buffer: Buffer, fence: *mut i32) -> c_int {
        assert!(fence.is_null());
        fake(buffer).locks -= 1;
        0
    }

    static NEW: Functions =
        Functions { from_hardware_buffer, acquire, release, describe, lock, lock_planes: Some(planes), unlock };
    static OLD: Functions = Functions { lock_planes: None, ..NEW };

    const fn plane(address: usize, pixel_stride: u32, row_stride: u32) -> SystemPlane {
        SystemPlane { data: ptr::without_provenance_mut(address), pixel_stride, row_stride }
    }

    fn made(format: u32, status: c_int, planes: &[SystemPlane]) -> Fake {
        let description = Description { width: 5, height: 3, format, stride: 8, ..Description::default() };
        Fake { description, status, planes: planes.to_vec(), locks: 0, references: 1 }
    }

    fn locked(functions: &'static Functions, it: &mut Fake) -> Result<HardwarePixels, Refusal> {
        // SAFETY: live until the end of the test.
        unsafe { HardwarePixels::of(functions, ptr::from_mut(it).cast()) }
    }

    #[test]
    fn every_format_has_planes_of_its_size() {
        let one = [plane(4096, 0, 0)];
        let three = [plane(4096, 1, 8), plane(8192, 2, 16), plane(8193, 2, 16)];
        let words = [plane(4096, 2, 16), plane(8192, 4, 24), plane(8194, 4, 24)];
        for (format, planes, want, lengths) in [
            (1, &one[..], FrameFormat::Rgba, &[2 * 32 + 20][..]),
            (2, &one, FrameFormat::Rgba, &[2 * 32 + 20]),
            (3, &one, FrameFormat::Rgb, &[2 * 24 + 15]),
            (0x38, &one, FrameFormat::Gray, &[2 * 8 + 5]),
            (0x23, &three, FrameFormat::Yuv420, &[21, 16 + 5, 16 + 5]),
            (0x36, &words, FrameFormat::P010, &[32 + 10, 24 + 10, 24 + 10]),
            (0x3c, &words, FrameFormat::P210, &[32 + 10, 48 + 10, 48 + 10]),
        ] {
            let mut it = made(format, 0, planes);
            let pixels = locked(&NEW, &mut it).unwrap();
            assert_eq!((pixels.format, pixels.width, pixels.height), (want, 5, 3));
            let found: Vec<u64> = pixels.planes().iter().map(|plane| plane.area.length).collect();
            assert_eq!(found, lengths, "{format}");
            assert!(pixels.planes().iter().zip(planes).all(|(a, b)| a.area.address == b.data as u64));
            assert_eq!((it.locks, it.references), (1, 2));
            drop(pixels);
            assert_eq!((it.locks, it.references), (0, 1), "{format}");
        }
    }

    /// The numbers are the positions in the enum of `Frame.kt`, which `wire.rs` reads.
    #[test]
    fn formats_are_numbered_as_in_kotlin() {
        use FrameFormat::{Bgra, Gray, P010, P210, Rgb, Rgba, Yuv420, Yuv422};
        let order = [Yuv420, Rgba, Bgra, Rgb, Gray, Yuv422, P010, P210];
        assert_eq!(order.map(|format| format as u32), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_left_unlocked() {
        let one = [plane(4096, 1, 8)];
        let cases = [
            (&NEW, made(0x23, 0, &one), "other planes"),
            (&NEW, made(0x23, -22, &one), "cannot be read"),
            (&NEW, made(1, -22, &one), "CPU_READ_OFTEN"),
            (&NEW, made(1, 0, &[plane(0, 0, 0)]), "other planes"),
            (&NEW, made(22, 0, &one), "do not have the format"),
            (&OLD, made(0x23, 0, &one), "Android 10"),
        ];
        for (functions, mut it, reason) in cases {
            let (_, why) = locked(functions, &mut it).map(|_| ()).unwrap_err();
            assert!(why.contains(reason), "{why} {reason}");
            assert_eq!((it.locks, it.references), (0, 1), "{reason}");
        }
        // SAFETY: null is allowed.
        let closed = unsafe { HardwarePixels::of(&NEW, ptr::null_mut()) };
        assert!(closed.map(|_| ()).unwrap_err().1.contains("closed"));
        assert!(locked(&OLD, &mut made(1, 0, &one)).is_ok());
    }
}
