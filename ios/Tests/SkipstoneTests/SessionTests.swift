import Foundation
import Skipstone
import Testing

@Suite struct SessionTests {
    let session: Session

    init() async throws { session = try await Session(contentsOf: Fixtures.package) }

    var port: ModelInfo.Port { session.model.info.inputs[0] }

    /// The sample, normalized as the model's metadata says.
    func prepared(_ image: Image) throws -> Tensor {
        func numbers(_ key: String) throws -> [Float] {
            try #require(session.model.info.metadata["skipstone.\(key)"]).split(separator: ",").map {
                try #require(Float($0.trimmingCharacters(in: .whitespaces)))
            }
        }
        let (mean, deviation) = try (numbers("mean"), numbers("std"))
        let values = (0..<3).flatMap { channel in
            stride(from: channel, to: image.rgb.count, by: 3).map {
                (Float(image.rgb[$0]) / 255 - mean[channel]) / deviation[channel]
            }
        }
        return Tensor(values, shape: [1, 3, image.height, image.width])
    }

    @Test(arguments: Fixtures.answers.prefix(5))
    func scoresAreThoseOfTheCommand(answer: Answer) async throws {
        let outputs = try await session.run([prepared(answer.pixels)])
        #expect(outputs.count == 1)
        #expect(outputs[0].shape == [1, 10])
        let logits = try #require(outputs[0].values(as: Float.self))
        let largest = try #require(logits.max())
        let powers = logits.map { exp($0 - largest) }
        let sum = powers.reduce(0, +)
        for (label, power) in zip(session.model.info.labels, powers) {
            let want = try #require(answer.top.first { $0.label == label }).score
            #expect(abs(power / sum - want) < 1e-3)
        }
    }

    @Test(arguments: Fixtures.answers.prefix(5))
    func framesBecomeInputs(answer: Answer) async throws {
        let values = try await session.prepare(answer.pixels.frame).values(as: Float.self)
        let wanted = try prepared(answer.pixels).values(as: Float.self)
        for (value, want) in zip(try #require(values), try #require(wanted)) { #expect(abs(value - want) < 0.02) }
        #expect(values?.count == wanted?.count)
    }

    @Test func inputsThatAreNotThereAreRefused() async throws {
        for input in [-1, 1, Int.max] {
            await expectError(.input, code: "input.unknown") {
                _ = try await session.prepare(Fixtures.cat.frame, input: input)
            }
        }
        session.close()
        await expectError(.closed) { _ = try await session.prepare(Fixtures.cat.frame) }
    }

    @Test func anOutputKeepsItsValuesAfterTheNextRun() async throws {
        let answers = Fixtures.answers
        let first = try await session.run([prepared(answers[0].pixels)])[0]
        let before = first.values(as: Float.self)
        let second = try await session.run([prepared(answers[2].pixels)])[0]
        #expect(first.values(as: Float.self) == before)
        #expect(second.values(as: Float.self) != before)
    }

    @Test func inputsThatDoNotFitAreRefused() async throws {
        let floats = [Float](repeating: 0, count: 3 * 32 * 32)
        let right = Tensor(floats, shape: [1, 3, 32, 32])
        await expectError(.input, code: "input.missing") { _ = try await session.run([]) }
        await expectError(.input) { _ = try await session.run([right, right]) }
        let shapes = [
            [1, 3, 32], [3, 32, 32, 1], [1, 3, 32, 32, 1], [], [1, 3, -32, -32], [.max, .max, .max, .max],
        ]
        for shape in shapes {
            await expectError(.input, code: "input.shape", of: "\(shape)") {
                _ = try await session.run([Tensor(floats, shape: shape)])
            }
        }
        await expectError(.input, code: "input.shape") {
            _ = try await session.run([Tensor(floats.map(Double.init), shape: [1, 3, 32, 32])])
        }
        // The right shape, but the wrong number of elements.
        for count in [0, 1, floats.count - 1, floats.count + 1] {
            await expectError(.input, of: "\(count)") {
                _ = try await session.run([Tensor([Float](repeating: 0, count: count), shape: [1, 3, 32, 32])])
            }
        }
        _ = try await session.run([right])
    }

    @Test func extremeInputValuesGiveAllOutputs() async throws {
        for value in [Float.nan, .infinity, -.infinity, .leastNonzeroMagnitude, .greatestFiniteMagnitude] {
            let outputs = try await session.run([Tensor([Float](repeating: value, count: 3072), shape: [1, 3, 32, 32])])
            #expect(outputs[0].values(as: Float.self)?.count == 10)
        }
    }

    @Test func theLibraryCountsOpenObjects() {
        #expect(!SkipstoneLibrary.version.isEmpty)
        #expect(SkipstoneLibrary.openObjects >= 1)
    }

    @Test func runsAreCancelledAndTimedAndMeasured() async throws {
        let zeros = Tensor(zerosFor: port)
        await expectError(.deadline) { _ = try await session.run([zeros], deadline: .zero) }
        try await session.startProfile()
        _ = try await session.run([zeros])
        #expect(try await !session.profile().isEmpty)
        #expect(session.latency.runs == 1)
        let runs = await begun { _ = try await session.run([zeros]) }
        runs.cancel()
        await #expect(throws: CancellationError.self) { try await runs.value }
    }
}

@Suite struct TensorTests {
    @Test func valuesComeBackAsTheirOwnType() {
        let tensor = Tensor([Int16](-3..<3), shape: [2, 3])
        #expect(tensor.element == .int16)
        #expect(tensor.values(as: Int16.self) == [-3, -2, -1, 0, 1, 2])
        #expect(tensor.values(as: UInt16.self) == nil)
        #expect(tensor.values(as: Float.self) == nil)
        #expect(tensor.withUnsafeBytes(\.count) == 12)
    }

    @Test func zerosAreZero() async throws {
        let port = try Model(contentsOf: Fixtures.package).info.inputs[0]
        #expect(Tensor(zerosFor: port).values(as: Float.self) == [Float](repeating: 0, count: 3072))
    }

    @Test func elementsHaveTheSizeOfTheirName() throws {
        for element in Tensor.Element.allCases where element != .bool {
            let bits = try #require(Int(element.rawValue.drop { !$0.isNumber }))
            #expect(element.size * 8 == bits)
        }
    }
}
