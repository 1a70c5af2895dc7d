import Foundation
import Skipstone
import Testing

/// ONNX files on the device. `cargo xtask ios test` builds the library with the feature `onnx`.
@Suite struct OnnxTests {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)

    @Test func anOnnxFileIsOpenedAndConverted() async throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let package = folder.appendingPathComponent("model.skip")
        let opened = try Classifier(Model(contentsOf: Fixtures.onnx))
        let converted = try Classifier(Model.convert(from: Fixtures.onnx, to: package))
        let again = try await Classifier(contentsOf: package)
        for answer in Fixtures.answers {
            for classifier in [opened, converted, again] {
                let predictions = try await classifier.classify(answer.pixels.frame, top: 10).predictions
                #expect(answer.agrees(with: predictions), "\(answer.image)")
            }
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["model.skip"])
    }

    @Test func aFileAboveALimitIsRefusedWithItsNameAndOpensOnceItIsRaised() async throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let package = folder.appendingPathComponent("model.skip")
        for name in ["nodes", "file", "elements", "name"] {
            let low = Config(limits: [name: 3])
            await expectError(.model, saying: "'\(name)'") { _ = try Model(contentsOf: Fixtures.onnx, config: low) }
            await expectError(.model, saying: "'\(name)'") {
                _ = try Model.convert(from: Fixtures.onnx, to: package, config: low)
            }
            _ = try Model(contentsOf: Fixtures.onnx, config: Config(limits: [name: 1 << 30]))
        }
        _ = try Model.convert(from: Fixtures.onnx, to: package, config: Config(limits: ["nodes": 1000]))
    }

    @Test func aFailedConversionLeavesTheTargetUnchanged() async throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let package = folder.appendingPathComponent("model.skip")
        try Data("the old one".utf8).write(to: package)
        let whole = try Data(contentsOf: Fixtures.onnx)
        let cut = folder.appendingPathComponent("cut.onnx")
        try whole.prefix(whole.count / 2).write(to: cut)
        let signed = Config(publicKey: Fixtures.publicKey)
        let other = Config(shapes: ["input": [1, 3, 64, 64]])
        await expectError(.model) { _ = try Model.convert(from: cut, to: package) }
        await expectError(.input) { _ = try Model.convert(from: Fixtures.onnx, to: package, config: other) }
        await expectError(.input) { _ = try Model.convert(from: Fixtures.onnx, to: package, config: signed) }
        await expectError(.package) { _ = try Model(contentsOf: Fixtures.onnx, config: signed) }
        await expectError(.io) { _ = try Model.convert(from: folder.appendingPathComponent("none"), to: package) }
        #expect(try Data(contentsOf: package) == Data("the old one".utf8))
    }
}
