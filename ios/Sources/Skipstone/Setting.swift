/// The value of a setting, or of state, that a model's session holds: one number per element, in row-major order.
///
/// ```swift
/// try await session.set("threshold", to: 0.8)
/// try await session.set("weights", to: [0.25, 0.75])
/// try await session.set("skip", to: true)
/// try await session.set("depth", to: Setting(slider.value))
/// ```
///
/// The session converts the numbers to the element type of the model's input, and refuses those that the type cannot
/// represent, such as 0.5 for an integer.
public struct Setting: Hashable, Sendable {
    let numbers: [Double]

    /// One number per element.
    public init(_ numbers: [Double]) { self.numbers = numbers }

    /// One number.
    public init(_ number: Double) { numbers = [number] }

    /// One bool.
    public init(_ flag: Bool) { numbers = [flag ? 1 : 0] }
}

extension Setting: ExpressibleByFloatLiteral, ExpressibleByIntegerLiteral {
    public init(floatLiteral number: Double) { self.init(number) }
    public init(integerLiteral number: Int) { self.init(Double(number)) }
}

extension Setting: ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral {
    public init(booleanLiteral flag: Bool) { self.init(flag) }
    public init(arrayLiteral numbers: Double...) { self.init(numbers) }
}
