import Skipstone
import Testing

/// Settings and state of the model that `tests/devices/variables.py` writes: its scores are `gain` times the mean of
/// each channel, negated if `negate`, plus the scores of the run before.
@Suite struct SettingTests {
    let session: Session

    init() async throws { session = try await Session(contentsOf: Fixtures.variables) }

    /// An image whose channels have these values.
    static func image(_ channels: [Float]) -> Tensor {
        Tensor(channels.flatMap { [Float](repeating: $0, count: 64) }, shape: [1, 3, 8, 8])
    }

    func scores(_ session: Session, _ channels: [Float] = [1, 2, 4]) async throws -> [Float] {
        try #require(try await session.run([Self.image(channels)])[0].values(as: Float.self))
    }

    @Test func settingsHoldUntilTheyAreSetAgainAndStateUntilItIsReset() async throws {
        #expect(try await scores(session) == [1, 2, 4])
        #expect(try await scores(session) == [2, 4, 8])
        try await session.reset()
        #expect(try await scores(session) == [1, 2, 4])
        try await session.set("gain", to: [0.5, 0, -1])
        #expect(try await scores(session) == [1.5, 2, 0])
        try await session.reset()
        try await session.set("negate", to: true)
        #expect(try await scores(session) == [-0.5, 0, 4])
        try await session.set("negate", to: 0)
        try await session.set("last", to: Setting([10, 20, 30]))
        #expect(try await scores(session) == [10.5, 20, 26])
        // Another session of the same model has values of its own.
        #expect(try await scores(Session(session.model)) == [1, 2, 4])
    }

    @Test func aClassifierHasSettingsAndCarriesStateFromFrameToFrame() async throws {
        let gray = Image(width: 8, height: 8) { _, _ in [128, 128, 128] }.frame
        let raw = ClassifierOptions(activation: ClassifierOptions.Activation.none)
        let classifier = try Classifier(session.model, options: raw)
        try await classifier.set("gain", to: [0, 1, 0])
        let best = try await classifier.classify(gray).predictions[0]
        #expect(best.label == "green")
        #expect(abs(best.score - 128 / 255) < 1e-4)
        #expect(try await classifier.classify(gray).predictions[0].score == 2 * best.score)
        try await classifier.reset()
        #expect(try await classifier.classify(gray).predictions[0].score == best.score)
        try await classifier.reset()
        try await classifier.set("gain", to: [0, 0, 1])
        #expect(try await classifier.classify(gray).predictions[0].label == "blue")
    }

    @Test func warmingUpLeavesSettingsAndNoState() async throws {
        try await session.set("gain", to: [2, 2, 2])
        try await session.set("last", to: [10, 20, 30])
        try await session.warmUp()
        #expect(try await scores(session) == [2, 4, 8])
        #expect(session.latency.runs == 2)
        let gray = Image(width: 8, height: 8) { _, _ in [128, 128, 128] }.frame
        let classifier = try Classifier(session.model)
        let want = try await classifier.classify(gray).predictions
        try await classifier.warmUp()
        #expect(try await classifier.classify(gray).predictions == want)
        classifier.close()
        await expectError(.closed, code: "closed") { try await classifier.warmUp() }
    }

    @Test func namesAndValuesThatDoNotFitAreRefusedAndChangeNothing() async throws {
        let wrong: [(code: String, name: String, value: Setting)] = [
            ("setting.unknown", "image", 1),
            ("setting.unknown", "", 1),
            ("setting.unknown", "gain\0", [1, 1, 1]),
            ("setting.value", "gain", 5),
            ("setting.value", "gain", []),
            ("setting.value", "gain", [5, 5, 1e300]),
            ("setting.value", "negate", 0.5),
            ("setting.value", "negate", Setting(2)),
            ("setting.value", "last", [5, 5, 5, 5]),
        ]
        for (code, name, value) in wrong {
            await expectError(.input, code: code, of: "\(name) \(value)") { try await session.set(name, to: value) }
        }
        #expect(try await scores(session) == [1, 2, 4])
        let plain = try await Session(contentsOf: Fixtures.package)
        await expectError(.input, code: "setting.unknown") { try await plain.set("gain", to: 1) }
        try await plain.reset()
    }

    @Test func closedObjectsHaveNoSettings() async throws {
        let classifier = try Classifier(session.model)
        session.close()
        classifier.close()
        await expectError(.closed, code: "closed") { try await session.set("negate", to: true) }
        await expectError(.closed, code: "closed") { try await session.reset() }
        await expectError(.closed, code: "closed") { try await classifier.set("negate", to: true) }
        await expectError(.closed, code: "closed") { try await classifier.reset() }
    }

    /// All channels and gains are alike, so the scores of a run are too, unless a setting changed during it.
    @Test func settingsChangeOnlyBetweenRuns() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for first in [1, 1000] {
                group.addTask {
                    for gain in first..<first + 500 {
                        try await session.set("gain", to: Setting([Double](repeating: Double(gain), count: 3)))
                        try await session.set("negate", to: Setting(gain.isMultiple(of: 2)))
                        if gain.isMultiple(of: 7) { try await session.reset() }
                    }
                }
            }
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<500 {
                        let got = try await scores(session, [0.5, 0.5, 0.5])
                        #expect(Set(got).count == 1, "\(got)")
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}
