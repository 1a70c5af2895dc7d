internal import SkipstoneBindings

/// The library itself.
public enum SkipstoneLibrary {
    /// Version of the Rust library.
    public static var version: String { SkipstoneBindings.version() }

    /// Classifiers and sessions that are open in the whole process. If this grows, they are not being closed.
    public static var openObjects: Int { Int(clamping: SkipstoneBindings.openObjects()) }
}
