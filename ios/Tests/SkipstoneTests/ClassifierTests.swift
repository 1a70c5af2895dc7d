import Foundation
import Skipstone
import Testing

@Suite struct ClassifierTests {
    let classifier: Classifier

    init() async throws { classifier = try await Classifier(contentsOf: Fixtures.package) }

    @Test func aModelDescribesItself() {
        let info = classifier.model.info
        #expect(info.inputs.map(\.shape) == [[1, 3, 32, 32]])
        #expect(info.inputs.map(\.element) == [.float32])
        #expect(info.outputs.map(\.shape) == [[1, 10]])
        #expect(info.labels.count == 10)
        #expect(info.labels.contains("frog"))
        #expect(info.parameters > 300_000)
        #expect(info.weightsBytes > 1_000_000)
        #expect(info.arenaBytes > 0)
        #expect(info.threads >= 1)
    }

    @Test(arguments: Fixtures.answers)
    func answersAreThoseOfTheCommand(answer: Answer) async throws {
        let result = try await classifier.classify(answer.pixels.frame, top: 10)
        #expect(answer.agrees(with: result.predictions), "\(result.predictions)")
        #expect(result.run > .zero)
        #expect(result.preparation > .zero)
    }

    @Test func mostSamplesAreRecognized() async throws {
        var right = 0
        for answer in Fixtures.answers {
            right += try await classifier.classify(answer.pixels.frame).predictions[0].label == answer.truth ? 1 : 0
        }
        #expect(Double(right) >= Double(Fixtures.answers.count) * 5 / 6)
    }

    @Test func topLimitsTheNumberOfClasses() async throws {
        let frame = Fixtures.cat.frame
        for (top, count) in [(0, 0), (1, 1), (3, 3), (10, 10), (1000, 10), (Int.max, 10), (-1, 0)] {
            let predictions = try await classifier.classify(frame, top: top).predictions
            #expect(predictions.count == count)
            #expect(predictions.map(\.score) == predictions.map(\.score).sorted(by: >))
        }
    }

    @Test func scoresAndNamesFollowTheOptions() async throws {
        func predictions(_ options: ClassifierOptions) async throws -> [Prediction] {
            try await Classifier(classifier.model, options: options).classify(Fixtures.cat.frame, top: 10).predictions
        }
        let all = try await predictions(.init())
        #expect(all.count == 10)
        #expect(try await predictions(.init(threshold: all[2].score)).map(\.index) == all.prefix(3).map(\.index))
        #expect(try await predictions(.init(allow: ["frog", "class 3"])).count == 2)
        #expect(try await predictions(.init(deny: [all[0].label])).map(\.index) == all.dropFirst().map(\.index))
        let logits = try await predictions(.init(activation: ClassifierOptions.Activation.none))
        let sigmoids = try await predictions(.init(activation: .sigmoid))
        for (logit, sigmoid) in zip(logits, sigmoids) {
            #expect(abs(1 / (1 + exp(-logit.score)) - sigmoid.score) < 1e-6)
        }
        let names = (0..<10).map { "name \($0)" }.joined(separator: "\n")
        #expect(try await predictions(.init(labels: names))[0].label == "name \(all[0].index)")
        await expectError(.input, code: "input.label") { _ = try await predictions(.init(allow: ["wolf"])) }
        await expectError(.input) { _ = try await predictions(.init(allow: ["frog"], deny: ["cat"])) }
        #expect(classifier.info.scores.hasPrefix("softmax, assumed"))
        #expect(classifier.info.normalization.origin.contains("metadata"), "\(classifier.info.normalization)")
    }

    @Test func dataInMemoryEqualsAFile() async throws {
        let model = try Model(data: Data(contentsOf: Fixtures.package))
        #expect(model.info.labels == classifier.model.info.labels)
        let frame = Fixtures.cat.frame
        let (one, other) = try await (Classifier(model).classify(frame), classifier.classify(frame))
        #expect(one.predictions == other.predictions)
    }

    @Test func aPackageInsideAFileIsOpenedInPlace() async throws {
        let whole = try Data(contentsOf: Fixtures.package)
        let archive = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try (Data(count: 4100) + whole + Data(count: 77)).write(to: archive)
        defer { try? FileManager.default.removeItem(at: archive) }
        let file = try FileHandle(forReadingFrom: archive)
        let (descriptor, length) = (file.fileDescriptor, UInt64(whole.count))
        let model = try Model(descriptor: descriptor, offset: 4100, length: length)
        await expectError(.package) { _ = try Model(descriptor: descriptor, offset: 4100, length: length - 1) }
        await expectError(.package, .model) { _ = try Model(descriptor: descriptor, offset: 4096, length: length) }
        try file.close()
        await expectError(.io) { _ = try Model(descriptor: -1, offset: 0, length: length) }
        let frame = Fixtures.cat.frame
        let (one, other) = try await (Classifier(model).classify(frame), classifier.classify(frame))
        #expect(one.predictions == other.predictions)
    }

    @Test func photosMayBeShrunkToTheInput() { #expect(classifier.info.photoSide == 32) }

    @Test func answersAreEqualForAnyNumberOfThreads() async throws {
        let answer = Fixtures.answers[0]
        for threads in [nil, 1, 2, 1000, -1] {
            for power in Config.Power.allCases {
                let config = Config(threads: threads, power: power)
                let classifier = try await Classifier(contentsOf: Fixtures.package, config: config)
                #expect(answer.agrees(with: try await classifier.classify(answer.pixels.frame, top: 10).predictions))
            }
        }
    }

    @Test func figuresCountTheRuns() async throws {
        #expect(classifier.latency.runs == 0)
        try await classifier.startProfile()
        for _ in 0..<20 { _ = try await classifier.classify(Fixtures.cat.frame) }
        let latency = classifier.latency
        #expect(latency.runs == 20)
        #expect(latency.min > .zero)
        #expect(latency.min <= latency.p50)
        #expect(latency.p50 <= latency.p90)
        #expect(latency.p90 <= latency.p99)
        #expect(latency.p99 <= latency.max)
        #expect((latency.min...latency.max).contains(latency.mean))

        let steps = try await classifier.profile()
        #expect(!steps.isEmpty)
        #expect(abs(steps.map(\.share).reduce(0, +) - 1) < 1e-6)
        #expect(steps.allSatisfy { !$0.kernel.isEmpty })

        let memory = classifier.memory
        #expect(memory.arenaBytes == classifier.model.info.arenaBytes)
        #expect(memory.residentBytes ?? .max > memory.arenaBytes)
    }
}
