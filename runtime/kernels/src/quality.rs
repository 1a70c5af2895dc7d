//! The quality of service of threads on Apple's systems: which cores run them, and before which others.
//!
//! A new thread has the default one there, whatever the thread has that starts it. A run of an app in the foreground
//! (`userInitiated`) would wait, at the end of every step, for workers that the system may leave on slow cores. Workers
//! therefore take over the quality of the thread that makes the pool. Other systems have none.

/// A class of quality of service; `None` if the system has none, or the thread has no particular one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality(Option<u32>);

impl Quality {
    /// That of the calling thread.
    pub(crate) fn current() -> Self {
        Self(system::current())
    }

    /// Gives it to the calling thread. Best effort: the system may refuse.
    pub(crate) fn take_over(self) {
        if let Some(class) = self.0 {
            system::set(class);
        }
    }
}

#[cfg(target_vendor = "apple")]
mod system {
    unsafe extern "C" {
        /// Always succeeds; 0 is no class (`sys/qos.h`).
        safe fn qos_class_self() -> u32;
        /// Takes a class and a priority within it, at most 0; refuses other values (`pthread/qos.h`).
        safe fn pthread_set_qos_class_self_np(class: u32, priority: i32) -> i32;
    }

    pub(super) fn current() -> Option<u32> {
        Some(qos_class_self()).filter(|&class| class != 0)
    }

    pub(super) fn set(class: u32) {
        pthread_set_qos_class_self_np(class, 0);
    }
}

#[cfg(not(target_vendor = "apple"))]
mod system {
    pub(super) fn current() -> Option<u32> {
        None
    }

    pub(super) fn set(_: u32) {}
}
