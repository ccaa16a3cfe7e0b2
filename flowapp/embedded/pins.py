"""What the embedded stack is made of: every file with its size and sha1, so that what is cached can be trusted.

`python -m flowapp.embedded.pins` resolves the versions below afresh and prints the rows.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KAFKA_VERSION = "4.4.0"
REGISTRY_VERSION = "3.3.3"


@dataclass(frozen=True)
class Artifact:
    """One file of a Maven repository: group:artifact:version[:classifier:packaging]."""

    coordinate: str
    size_bytes: int
    sha1: str

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """Group, artifact, version, classifier and packaging."""
        group, artifact, version, *rest = self.coordinate.split(":")
        classifier, packaging = rest or ("", "jar")
        return group, artifact, version, classifier, packaging

    @property
    def file_name(self) -> str:
        """The file's name in a repository."""
        _, artifact, version, classifier, packaging = self.parts
        return f"{artifact}-{version}{classifier and '-' + classifier}.{packaging}"


@dataclass(frozen=True)
class Component:
    """Files that make one part of the stack; `unpack` for a single archive."""

    name: str
    version: str
    artifacts: tuple[Artifact, ...]
    unpack: bool = False

    @property
    def folder_name(self) -> str:
        """The folder's name under FLOW_HOME/components."""
        return f"{self.name}-{self.version}"

    @property
    def size_bytes(self) -> int:
        """Bytes to download."""
        return sum(artifact.size_bytes for artifact in self.artifacts)


KAFKA_ARTIFACTS = (
    Artifact("org.apache.kafka:kafka_2.13:4.4.0", 1_333_804, "2e194c128f7bd43bef49f5647be34d680f6a6474"),
    Artifact("org.apache.kafka:kafka-clients:4.4.0", 10_925_782, "1d2ebc2a3f0ecce03faa288c42d4e8f998aac47d"),
    Artifact("org.scala-lang:scala-library:2.13.18", 5_940_741, "eb2086988c25b08705472cc750654570900362e5"),
    Artifact("org.apache.kafka:kafka-server-common:4.4.0", 411_710, "f6125385dd7c41b0a20a75f240666e495158e235"),
    Artifact("org.apache.kafka:kafka-group-coordinator-api:4.4.0", 31_213, "5159f9226c8930035cdd5140b6a24df25a588061"),
    Artifact("org.apache.kafka:kafka-group-coordinator:4.4.0", 1_052_839, "07dfc73a2de9499589557071cbd595f6e14694eb"),
    Artifact("org.apache.kafka:kafka-transaction-coordinator:4.4.0", 82_042, "32fc9c405002f44bc06eb266df42fa82dde13823"),
    Artifact("org.apache.kafka:kafka-metadata:4.4.0", 870_061, "5ade78a65abb3870b33f669a5a0b449de52093a2"),
    Artifact("org.apache.kafka:kafka-storage-api:4.4.0", 29_795, "536348c3f5face8e0788b9e47b6f2337899194be"),
    Artifact("org.apache.kafka:kafka-tools-api:4.4.0", 9_605, "4e9326543b4c45cb5db9178aa25cb91fb05685cf"),
    Artifact("org.apache.kafka:kafka-raft:4.4.0", 338_700, "a8da7a1d71c6b4ad3f96cdb3af977df216d595df"),
    Artifact("org.apache.kafka:kafka-storage:4.4.0", 646_984, "b215580ff932405e06e55969d16b63a37c2d2ff2"),
    Artifact("org.apache.kafka:kafka-server:4.4.0", 525_976, "3a8174850ed33c7669841fad1795b79c1d205bf5"),
    Artifact("org.apache.kafka:kafka-coordinator-common:4.4.0", 125_271, "531d4e04ea04d79decd585ca7930f57757554ca5"),
    Artifact("org.apache.kafka:kafka-share-coordinator:4.4.0", 116_547, "3e4b92a3a179eb435f3807b567a83611b4eb0baf"),
    Artifact("net.sourceforge.argparse4j:argparse4j:0.7.0", 90_347, "6f0621d0c3888de39e0f06d01f37ba53a798e657"),
    Artifact("com.fasterxml.jackson.core:jackson-databind:2.21.7", 1_709_095, "a2ebbc72e3092323f0f3defa786ff3bb0c47218c"),
    Artifact("com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.21.7", 36_039, "83f1c3c394b531496917e86e886aa00ac5cecc63"),
    Artifact("com.fasterxml.jackson.dataformat:jackson-dataformat-yaml:2.21.7", 63_001, "cd755d8f2c860e887301b47140f60ab58b3eb538"),
    Artifact("net.sf.jopt-simple:jopt-simple:5.0.4", 78_146, "4fdac2fbe92dfad86aa6e9301736f6b4342a3f5c"),
    Artifact("org.bitbucket.b_c:jose4j:0.9.6", 299_502, "357a3836bb5da16f314f3a1e954518e5468cd915"),
    Artifact("com.yammer.metrics:metrics-core:2.2.0", 82_123, "f82c035cfa786d3cbec362c38c22a5f5b1bc8724"),
    Artifact("org.scala-lang:scala-reflect:2.13.18", 3_814_367, "674f3bd39f5c528d575da69c42a5dff772b9b75c"),
    Artifact("com.typesafe.scala-logging:scala-logging_2.13:3.9.6", 61_614, "f887ff84d87e3e9c89e28f8a4064bf74d1eacbb4"),
    Artifact("org.slf4j:slf4j-api:1.7.36", 41_125, "6c62681a2f655b49963a5983b8b0950a6120ae14"),
    Artifact("com.google.re2j:re2j:1.8", 114_335, "12c25e923e9e4fb1575a7640a2698745c6f19a94"),
    Artifact("com.github.luben:zstd-jni:1.5.7-17", 6_323_239, "b4fea046fcd925681fa10c61be99da059f4f745a"),
    Artifact("at.yawk.lz4:lz4-java:1.11.2", 897_831, "3fe7cb28a7102752d77c3aa4e309ea76efe85def"),
    Artifact("org.xerial.snappy:snappy-java:1.1.10.7", 2_338_496, "3049f95640f4625a945cfab85715f603fa4c8f80"),
    Artifact("org.pcollections:pcollections:4.0.2", 73_718, "c8398b4443deae11e6eaffbc04a371b4eb8f6b8e"),
    Artifact("com.dynatrace.hash4j:hash4j:0.22.0", 316_573, "2d61bfb5b38469cb76141b06dc68d36a9007e9ad"),
    Artifact("com.github.ben-manes.caffeine:caffeine:3.2.0", 906_581, "35eba09997476a39492ac7f7b2bb0e8292c09d17"),
    Artifact("commons-validator:commons-validator:1.10.1", 203_132, "cdf5c2a69aad509c4db54786f19f1e1ccc471bcf"),
    Artifact("org.apache.logging.log4j:log4j-api:2.25.5", 351_427, "6c80ea65e41f7858f7e15cb390c98c36167c7b3a"),
    Artifact("org.apache.logging.log4j:log4j-core:2.25.5", 2_020_932, "c194a13e18b0a36014e867d2d323b989bf212151"),
    Artifact("org.hdrhistogram:HdrHistogram:2.2.2", 177_206, "7959933ebcc0f05b2eaa5af0a0c8689fa257b15c"),
    Artifact("com.fasterxml.jackson.core:jackson-annotations:2.21", 82_104, "b1bc1868bf02dc0bd6c7836257a036a331005309"),
    Artifact("com.fasterxml.jackson.core:jackson-core:2.21.7", 594_782, "5abfb904683e642f4a5458f2a78ab9308c7c5a46"),
    Artifact("org.yaml:snakeyaml:2.5", 340_015, "2d53ddec134280cb384c1e35d094e5f71c1f2316"),
    Artifact("org.jspecify:jspecify:1.0.0", 3_819, "7425a601c1c7ec76645a78d22b8c6a627edee507"),
    Artifact("commons-beanutils:commons-beanutils:1.11.0", 246_806, "ac03ea606d13de04c2e4508227680faff151f491"),
    Artifact("commons-digester:commons-digester:2.1", 196_768, "73a8001e7a54a255eef0f03521ec1805dc738ca0"),
    Artifact("commons-logging:commons-logging:1.3.5", 73_737, "a3fcc5d3c29b2b03433aa2d2f2d2c1b1638924a1"),
    Artifact("commons-collections:commons-collections:3.2.2", 588_337, "8ad72fe39fa8c91eaaf12aadb21e0c3661fe26d5"),
    Artifact("org.apache.logging.log4j:log4j-slf4j-impl:2.25.5", 25_391, "542f388168432b2dfce12edde0d99c01649c4873"),
)
REGISTRY_ARTIFACTS = (
    Artifact("io.apicurio:apicurio-registry-app:3.3.3:all:tar.gz", 158_577_952, "71e7918455480cbce405ad45552254eb47ec932d"),
)
KAFKA = Component("kafka", KAFKA_VERSION, KAFKA_ARTIFACTS)
REGISTRY = Component("apicurio-registry", REGISTRY_VERSION, REGISTRY_ARTIFACTS, unpack=True)
ALL = (KAFKA, REGISTRY)


def resolve(folder: Path) -> list[Artifact]:
    """Resolve both components from the repository into `folder` and return their files as they are there today."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=folder, timeout=60)
    # Kafka is resolved alone: with log4j-slf4j-impl beside it, that project's managed versions win (kafka-clients 3.8).
    inputs, transitive = context.resolver.resolve([context.create_dependency(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")])
    files = [dependency.artifact for dependency in inputs + transitive]
    log4j = next(file.version for file in files if file.artifactId == "log4j-core")
    files.append(context.project("org.apache.logging.log4j", "log4j-slf4j-impl").at_version(log4j).artifact())
    registry = context.project("io.apicurio", "apicurio-registry-app").at_version(REGISTRY_VERSION)
    files.append(registry.artifact(classifier="all", packaging="tar.gz"))
    return [_pin(file) for file in files]


def _pin(file: Any) -> Artifact:
    content = file.resolve().read_bytes()
    words = [file.groupId, file.artifactId, file.version]
    if file.classifier:
        words += [file.classifier, file.packaging]
    return Artifact(":".join(words), len(content), hashlib.sha1(content).hexdigest())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for row in resolve(Path(scratch)):
            print(f'    Artifact("{row.coordinate}", {row.size_bytes:_}, "{row.sha1}"),')
