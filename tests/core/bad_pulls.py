"""Invalid fields about the pull of weights, with the errors of the parser and of the CRD; part of ``bad_models``."""

from __future__ import annotations

from tests.core.model_cases import Bad, with_fields

BAD_PULLS = [
    Bad(
        "an unknown cache",
        with_fields(cache={"type": "disk"}),
        "spec.cache.type",
        "'claim', 'shared', 'ephemeral' or 'image'",
        '"claim"',
    ),
    Bad(
        "a shared cache without a claim",
        with_fields(cache={"type": "shared"}),
        "spec.cache.claimName",
        "requires",
        "claimName is required for type shared",
    ),
    Bad(
        "the name of an own claim",
        with_fields(cache={"claimName": "weights"}),
        "spec.cache.claimName",
        "unset for type claim",
        "claimName must be unset",
    ),
    Bad(
        "a size of a shared claim",
        with_fields(cache={"type": "shared", "claimName": "weights", "size": "1Gi"}),
        "spec.cache.size",
        "unset for type shared",
        "must be unset for type shared",
    ),
    Bad(
        "a claim for weights in the pod",
        with_fields(cache={"type": "ephemeral", "claimName": "weights"}),
        "spec.cache.claimName",
        "unset for type ephemeral",
        "claimName must be unset",
    ),
    Bad(
        "a StorageClass for weights in the pod",
        with_fields(cache={"type": "ephemeral", "storageClassName": "fast"}),
        "spec.cache.storageClassName",
        "unset for type ephemeral",
        "must be unset for type ephemeral",
    ),
    Bad(
        "access modes for weights in the pod",
        with_fields(cache={"type": "ephemeral", "accessModes": ["ReadWriteMany"]}),
        "spec.cache.accessModes",
        "unset for type ephemeral",
        "must be unset for type ephemeral",
    ),
    Bad(
        "weights in the pod that stay",
        with_fields(cache={"type": "ephemeral", "retain": True}),
        "spec.cache.retain",
        "unset for type ephemeral",
        "must be unset for type ephemeral",
    ),
    Bad(
        "an image of another source",
        with_fields(cache={"type": "image"}),
        "spec.cache.type",
        "image requires an oci:// source",
        "cache.type image requires an oci:// source",
    ),
    Bad(
        "the name of a claim beside an image",
        {"source": "oci://registry.example/team/model", "cache": {"type": "image", "claimName": "weights"}},
        "spec.cache.claimName",
        "unset for type image",
        "claimName must be unset",
    ),
    Bad("an invalid size", with_fields(cache={"size": "4GB"}), "spec.cache.size", "500m or 4Gi", "should match"),
    Bad(
        "no access mode",
        with_fields(cache={"accessModes": []}),
        "spec.cache.accessModes",
        "at least 1 item",
        "should have at least 1 items",
    ),
    Bad(
        "a proxy with a password",
        with_fields(proxy={"httpsProxy": "http://user:secret@proxy:3128"}),  # pragma: allowlist secret
        "spec.proxy.httpsProxy",
        "belong in httpsProxySecretRef",
        "belong in httpsProxySecretRef",
    ),
    Bad(
        "a proxy without a scheme",
        with_fields(proxy={"httpsProxy": "proxy:3128"}),
        "spec.proxy.httpsProxy",
        "http://proxy.example:3128",
        "http://proxy.example:3128",
    ),
    Bad(
        "two proxies",
        with_fields(proxy={"httpsProxy": "http://proxy:3128", "httpsProxySecretRef": {"name": "a", "key": "b"}}),
        "spec.proxy.httpsProxy",
        "unset beside httpsProxySecretRef",
        "either httpsProxy or httpsProxySecretRef",
    ),
    Bad(
        "a bundle without an object",
        with_fields(proxy={"caBundle": {"key": "ca.crt"}}),
        "spec.proxy.caBundle.configMapName",
        "either configMapName or secretName",
        "either configMapName or secretName",
    ),
    Bad(
        "an unknown update policy",
        with_fields(updatePolicy="Always"),
        "spec.updatePolicy",
        "'Pinned', 'OnRestart' or 'Poll'",
        '"Pinned"',
    ),
    Bad(
        "a short poll interval",
        with_fields(updatePolicy="Poll", pollInterval="29s"),
        "spec.pollInterval",
        "at least 30 seconds",
        "at least 30s",
    ),
    Bad(
        "a Secret without a name",
        with_fields(sourceSecretRef={}),
        "spec.sourceSecretRef.name",
        "required",
        "spec.sourceSecretRef.name: Required value",
    ),
]
