"""The networks that come with deploykit: name → where its class is, imported only when it is asked for."""

from __future__ import annotations

MODELS: dict[str, str] = {
    "sinet": "deploykit.models.sinet:SINet",
    "rcrnet": "deploykit.models.rcrnet:RCRNet",
    "portraitnet": "deploykit.models.portraitnet:PortraitNet",
    "mobilenetv3_sappm": "deploykit.models.mobilenetv3_sappm:MobileNetV3Sappm",
    "elb": "deploykit.models.elb:ELB",
}
