// A trust store that holds one certificate, for this process.

import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;

final class Trust {
    static final String PASSWORD = "public";
    static final String TYPE = "PKCS12";
    private static Path store;

    private Trust() {}

    /** The store's file. */
    static String path() {
        return store.toString();
    }

    /** Makes the store, and makes it the default: jTDS knows no other. */
    static void only(Path pem) throws Exception {
        Certificate certificate;
        try (InputStream in = Files.newInputStream(pem)) {
            certificate = CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
        KeyStore keys = KeyStore.getInstance(TYPE);
        keys.load(null, null);
        keys.setCertificateEntry("server", certificate);
        store = Files.createTempFile("conform-", ".p12");
        store.toFile().deleteOnExit();
        try (OutputStream out = Files.newOutputStream(store)) {
            keys.store(out, PASSWORD.toCharArray());
        }
        System.setProperty("javax.net.ssl.trustStore", path());
        System.setProperty("javax.net.ssl.trustStoreType", TYPE);
        System.setProperty("javax.net.ssl.trustStorePassword", PASSWORD);
    }
}
