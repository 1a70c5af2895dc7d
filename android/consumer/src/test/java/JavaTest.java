import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;

import dev.skipstone.Classification;
import dev.skipstone.Classifier;
import dev.skipstone.Config;
import dev.skipstone.Frame;
import dev.skipstone.Session;
import dev.skipstone.SkipstoneException;
import java.io.File;
import java.nio.ByteBuffer;
import java.util.List;
import org.junit.Test;

public class JavaTest {
    private final File model = new File(System.getProperty("model"));

    @Test
    public void javaCallsWhatDoesNotSuspend() {
        Frame gray = Frame.gray(32, 32, ByteBuffer.allocateDirect(32 * 32)).rotated(90);
        try (Classifier classifier = Classifier.openBlocking(model)) {
            Classification shown = classifier.classifyBlocking(gray, 3);
            assertEquals(3, shown.getPredictions().size());
            assertEquals(1, classifier.getLatency().getRuns());
        }
        try (Session session = Session.openBlocking(model, new Config(1))) {
            List<ByteBuffer> outputs = session.outputs();
            session.runBlocking(session.inputs(), outputs);
            assertEquals(40, outputs.get(0).remaining());
        }
    }

    @Test
    public void errorsAreExceptionsOfTheirKind() {
        SkipstoneException missing =
                assertThrows(SkipstoneException.Io.class, () -> Classifier.openBlocking(new File("/nowhere.skip")));
        assertEquals("io", missing.getCode());
    }
}
