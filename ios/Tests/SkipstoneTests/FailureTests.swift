import Foundation
import Skipstone
import Testing

/// Damaged packages: an error of a kind that an app can act on, and never a crash.
@Suite struct PackageTests {
    let whole = try! Data(contentsOf: Fixtures.package)

    @Test func missingFilesAreErrors() async throws {
        await expectError(.io, code: "io") { _ = try Model(contentsOf: URL(fileURLWithPath: "/nowhere/model.skip")) }
        await expectError(.io, code: "io") { _ = try Model(contentsOf: Fixtures.folder) }
        await expectError(.io, code: "io") { _ = try Model(contentsOf: URL(string: "https://example.org/model.skip")!) }
        await expectError(.io) { _ = try await Classifier(contentsOf: URL(fileURLWithPath: "")) }
        await expectError(.io) { _ = try await Session(contentsOf: URL(fileURLWithPath: "/nul\0byte")) }
    }

    @Test func filesThatAreNotPackagesAreErrors() async throws {
        for bytes in [Data(), Data([0]), Data(repeating: 0xff, count: 10_000), Data("not a package".utf8)] {
            // With the feature `onnx` the bytes count as a broken ONNX file.
            await expectError(.package, .model, of: "\(bytes)") { _ = try Model(data: bytes) }
        }
        let picture = Fixtures.folder.appendingPathComponent("cat_0.ppm")
        await expectError(.package, .model) { _ = try Model(contentsOf: picture) }
    }

    @Test func truncatedPackagesAreErrors() async throws {
        for part in 0..<64 {
            let begin = whole.prefix(whole.count * part / 64)
            await expectError(.package, .model, of: "\(part)/64") { _ = try Model(data: begin) }
        }
        await expectError(.package) { _ = try Model(data: whole.dropLast()) }
    }

    /// Regression: a package that was truncated or overwritten while mapped ended the process.
    @Test func packagesThatChangeWhileOpenAreErrors() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("model.skip")
        let old = try Classifier(Model.install(from: Fixtures.mapped, to: file))
        let copied = try await Classifier(contentsOf: file, config: Config(copy: true))
        _ = try Model.install(whole, to: file)
        await expectError(.package) { _ = try Model.install(whole.dropLast(), to: file) }
        await expectError(.io) { _ = try Model.install(from: folder.appendingPathComponent("none"), to: file) }
        _ = try await old.classify(Fixtures.cat.frame)
        let new = try await Classifier(contentsOf: file)
        _ = try await new.classify(Fixtures.cat.frame)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["model.skip"])
        try FileHandle(forWritingTo: file).truncate(atOffset: 10)
        await expectError(.package, code: "package.changed") { _ = try await new.classify(Fixtures.cat.frame) }
        _ = try await old.classify(Fixtures.cat.frame)
        _ = try await copied.classify(Fixtures.cat.frame)
    }

    @Test func packagesWithAFlippedBitAreErrors() async throws {
        for part in 0..<64 {
            var bytes = whole
            bytes[whole.count * part / 64] ^= 1
            await expectError(.package, .model, of: "\(part)/64") { _ = try Model(data: bytes) }
        }
    }

    @Test func aModelAboveALimitIsRefusedWithItsNameAndOpensOnceItIsRaised() async throws {
        for name in ["memory", "work"] {
            await expectError(.model, code: "model.limit", saying: "'\(name)'") {
                _ = try Model(contentsOf: Fixtures.package, config: Config(limits: [name: 1000]))
            }
            _ = try Model(contentsOf: Fixtures.package, config: Config(limits: [name: 1 << 40]))
        }
        // Limits of ONNX files are known to every library.
        _ = try Model(contentsOf: Fixtures.package, config: Config(limits: ["nodes": 1]))
        for (name, value) in [("frobs", 1), ("", 1), ("Memory", 1), ("memory", -1)] {
            await expectError(.input, code: "input.limit", saying: "memory") {
                _ = try Model(contentsOf: Fixtures.package, config: Config(limits: [name: value]))
            }
        }
    }

    @Test func aBudgetForExpertsChangesNothingWhereThereAreNone() async throws {
        _ = try Model(contentsOf: Fixtures.package, config: Config(expertBudget: 1 << 40))
        _ = try Model(contentsOf: Fixtures.package, config: Config(expertBudget: 0))
        await expectError(.input, code: "input.budget") {
            _ = try Model(contentsOf: Fixtures.package, config: Config(expertBudget: -1))
        }
    }

    @Test func aKeyRequiresASignature() async throws {
        let key = Fixtures.publicKey
        _ = try Model(contentsOf: Fixtures.signed, config: Config(publicKey: key))
        _ = try Model(contentsOf: Fixtures.signed)
        await expectError(.package, code: "package.signature") {
            _ = try Model(contentsOf: Fixtures.package, config: Config(publicKey: key))
        }
        // Another point of the curve: its base.
        let other = Data([0x58] + [UInt8](repeating: 0x66, count: 31))
        await expectError(.package, code: "package.signature") {
            _ = try Model(contentsOf: Fixtures.signed, config: Config(publicKey: other))
        }
        for wrong in [Data(), key.dropLast(), key + [0]] {
            await expectError(.input) { _ = try Model(contentsOf: Fixtures.signed, config: Config(publicKey: wrong)) }
        }
    }
}

@Suite struct LifetimeTests {
    let model: Model
    let frame = Fixtures.cat.frame

    init() throws { model = try Model(contentsOf: Fixtures.package) }

    @Test func closedObjectsAreErrors() async throws {
        let classifier = try Classifier(model)
        _ = try await classifier.classify(frame)
        classifier.close()
        classifier.close()
        await expectError(.closed, code: "closed") { _ = try await classifier.classify(frame) }
        await expectError(.closed) { _ = try await classifier.classify(frame, deadline: .seconds(1)) }
        await expectError(.closed) { try await classifier.startProfile() }
        await expectError(.closed) { _ = try await classifier.profile() }
        #expect(classifier.latency.runs == 1)

        let session = try Session(model)
        session.close()
        await expectError(.closed) { _ = try await session.run([Tensor(zerosFor: model.info.inputs[0])]) }
        // Closing what ran the model does not close the model.
        _ = try await Classifier(model).classify(frame)
    }

    @Test func closingEndsARun() async throws {
        for _ in 0..<20 {
            let classifier = try Classifier(model)
            let runs = await begun { _ = try await classifier.classify(frame) }
            classifier.close()
            await expectError(.closed, .cancelled) { try await runs.value }
        }
    }

    @Test func cancellingATaskEndsItsRun() async throws {
        let classifier = try Classifier(model)
        for round in 1...20 {
            let runs = await begun { _ = try await classifier.classify(frame) }
            runs.cancel()
            await #expect(throws: CancellationError.self, "round \(round)") { try await runs.value }
            _ = try await classifier.classify(frame)
        }
    }

    @Test func cancellingATaskLeavesOthersAlone() async throws {
        let classifier = try Classifier(model)
        let answer = Fixtures.answers[0]
        let other = Task {
            for _ in 0..<200 {
                let predictions = try await classifier.classify(answer.pixels.frame, top: 10).predictions
                #expect(answer.agrees(with: predictions))
            }
        }
        for _ in 0..<200 {
            let task = Task { _ = try await classifier.classify(frame) }
            await Task.yield()
            task.cancel()
            // It may have finished before the cancellation.
            do { try await task.value } catch is CancellationError {}
        }
        try await other.value
    }

    @Test func aCancelledTaskDoesNotBegin() async throws {
        let classifier = try Classifier(model)
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            _ = try await classifier.classify(frame)
        }
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(classifier.latency.runs == 0)
    }

    @Test func aLateRunEnds() async throws {
        let classifier = try Classifier(model)
        await expectError(.deadline, code: "deadline") { _ = try await classifier.classify(frame, deadline: .zero) }
        await expectError(.deadline) { _ = try await classifier.classify(frame, deadline: .nanoseconds(1)) }
        _ = try await classifier.classify(frame, deadline: .seconds(3600))
        _ = try await classifier.classify(frame)
        await expectError(.input) { _ = try await classifier.classify(frame, deadline: .seconds(-1)) }
        _ = try await classifier.classify(frame)
    }

    @Test func eightTasksShareAClassifier() async throws {
        try await inEightTasks(with: Classifier(model))
    }

    @Test func eightClassifiersShareAModel() async throws {
        try await inEightTasks(with: nil)
    }

    private func inEightTasks(with shared: Classifier?) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<8 {
                group.addTask {
                    let classifier = try shared ?? Classifier(model)
                    for round in 0..<50 {
                        let answer = Fixtures.answers[(task * 7 + round) % Fixtures.answers.count]
                        let predictions = try await classifier.classify(answer.pixels.frame, top: 10).predictions
                        #expect(answer.agrees(with: predictions), "\(answer.image)")
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func nothingLeaks() async throws {
        func round(_ number: Int) async throws {
            let config = Config(threads: number % 10 == 0 ? 2 : 1)
            let classifier = try Classifier(Model(contentsOf: Fixtures.mapped, config: config))
            _ = try? await classifier.classify(frame, deadline: .zero)
            if number % 10 == 0 { _ = try await classifier.classify(frame) }
            if number % 2 == 0 { classifier.close() }
            _ = try? Model(data: Data(count: 100))
        }
        // Allocators keep memory: the first rounds are not counted.
        for number in 0..<500 { try await round(number) }
        guard let before = try Classifier(model).memory.residentBytes else { return }
        for number in 0..<10_000 {
            try await round(number)
            if number % 2000 == 1999 { print("opened and closed \(number + 1) times") }
        }
        let after = try #require(try Classifier(model).memory.residentBytes)
        // A leak of one kilobyte per round would be ten megabytes.
        #expect(after - before < 8 << 20, "\(after - before) bytes more")
    }
}
