// Connects twenty times with each version of TLS, one request on each connection: java Resume.java PORT CA-FILE. Java's own cache of sessions is used.
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public class Resume {
  public static void main(String[] arguments) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null);
    try (InputStream pem = Files.newInputStream(Path.of(arguments[1]))) {
      store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(store);
    for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
      SSLContext context = SSLContext.getInstance("TLS");
      context.init(null, trust.getTrustManagers(), null);
      for (int i = 0; i < 20; i++) {
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", Integer.parseInt(arguments[0]))) {
          socket.setEnabledProtocols(new String[] {version});
          socket.getOutputStream().write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".getBytes());
          String answer = new String(socket.getInputStream().readAllBytes());
          if (!answer.startsWith("HTTP/1.1 200")) throw new IOException(answer);
        }
      }
    }
  }
}
