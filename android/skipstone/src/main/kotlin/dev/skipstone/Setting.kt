package dev.skipstone

/**
 * The value of a setting, or of state, that a model's session holds: one number per element, in row-major order.
 *
 * ```
 * session.set("threshold", Setting(0.8))
 * session.set("weights", Setting(0.25, 0.75))
 * session.set("skip", Setting(true))
 * ```
 *
 * The session converts the numbers to the element type of the model's input, and refuses those that the type cannot
 * represent, such as 0.5 for an integer.
 *
 * @param numbers one number per element.
 */
public class Setting(vararg numbers: Double) {
    internal val numbers: List<Double> = numbers.toList()

    /** One whole number. */
    public constructor(number: Int) : this(number.toDouble())

    /** One bool. */
    public constructor(flag: Boolean) : this(if (flag) 1.0 else 0.0)
}
