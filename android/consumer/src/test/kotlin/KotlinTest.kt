import dev.skipstone.Classifier
import dev.skipstone.Frame
import java.io.File
import java.nio.ByteBuffer
import javax.imageio.ImageIO
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlinx.coroutines.runBlocking

class KotlinTest {
    /** The labels are those that the command line gives these images. */
    @Test
    fun `an app classifies images`(): Unit = runBlocking {
        Classifier.open(File(System.getProperty("model"))).use { classifier ->
            for (line in File(System.getProperty("labels")).readLines()) {
                val (name, label) = line.split(' ', limit = 2)
                val image = ImageIO.read(File(System.getProperty("images"), name))
                val pixels = ByteBuffer.allocateDirect(3 * image.width * image.height)
                for (y in 0 until image.height) for (x in 0 until image.width) {
                    for (shift in listOf(16, 8, 0)) pixels.put((image.getRGB(x, y) shr shift).toByte())
                }
                val frame = Frame.rgb(image.width, image.height, pixels.flip())
                assertEquals(label, classifier.classify(frame).best?.label, name)
            }
        }
    }
}
