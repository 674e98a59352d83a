"""Google's protocol buffers for the messages of Prometheus: io/prometheus/client/metrics.proto of client_model 0.6."""

from __future__ import annotations

import re
from math import inf

from google.protobuf import descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.internal.decoder import _DecodeVarint32
from prometheus_client.utils import floatToGoString

PROTO = """
message LabelPair { optional string name = 1; optional string value = 2; }
message Gauge { optional double value = 1; }
message Counter { optional double value = 1; optional Exemplar exemplar = 2; optional Timestamp created_timestamp = 3; }
message Quantile { optional double quantile = 1; optional double value = 2; }
message Summary {
  optional uint64 sample_count = 1; optional double sample_sum = 2; repeated Quantile quantile = 3;
  optional Timestamp created_timestamp = 4;
}
message Untyped { optional double value = 1; }
message Histogram {
  optional uint64 sample_count = 1; optional double sample_count_float = 4; optional double sample_sum = 2;
  repeated Bucket bucket = 3; optional Timestamp created_timestamp = 15;
  optional sint32 schema = 5; optional double zero_threshold = 6;
  optional uint64 zero_count = 7; optional double zero_count_float = 8;
  repeated BucketSpan negative_span = 9; repeated sint64 negative_delta = 10; repeated double negative_count = 11;
  repeated BucketSpan positive_span = 12; repeated sint64 positive_delta = 13; repeated double positive_count = 14;
  repeated Exemplar exemplars = 16;
}
message Bucket {
  optional uint64 cumulative_count = 1; optional double cumulative_count_float = 4;
  optional double upper_bound = 2; optional Exemplar exemplar = 3;
}
message BucketSpan { optional sint32 offset = 1; optional uint32 length = 2; }
message Exemplar { repeated LabelPair label = 1; optional double value = 2; optional Timestamp timestamp = 3; }
message Metric {
  repeated LabelPair label = 1; optional Gauge gauge = 2; optional Counter counter = 3; optional Summary summary = 4;
  optional Untyped untyped = 5; optional Histogram histogram = 7; optional int64 timestamp_ms = 6;
}
message MetricFamily {
  optional string name = 1; optional string help = 2; optional MetricType type = 3; repeated Metric metric = 4;
  optional string unit = 5;
}
"""
TYPES = ("COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM", "GAUGE_HISTOGRAM")


def _family_class():
    """Return the class of the message ``MetricFamily``."""
    file = FileDescriptorProto(name="metrics.proto", package="io.prometheus.client", syntax="proto2")
    file.dependency.append("google/protobuf/timestamp.proto")
    enum = file.enum_type.add(name="MetricType")
    for number, name in enumerate(TYPES):
        enum.value.add(name=name, number=number)
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", PROTO, re.DOTALL):
        message = file.message_type.add(name=name)
        for label, kind, field, number in re.findall(r"(optional|repeated) (\w+) (\w+) = (\d+);", body):
            added = message.field.add(name=field, number=int(number), label=getattr(Field, f"LABEL_{label.upper()}"))
            if scalar := getattr(Field, f"TYPE_{kind.upper()}", None):
                added.type = scalar
            elif kind == "Timestamp":
                added.type_name = f".{timestamp_pb2.Timestamp.DESCRIPTOR.full_name}"
            else:
                added.type_name = f".{file.package}.{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("io.prometheus.client.MetricFamily"))


MetricFamily = _family_class()


def parse(body: bytes) -> list:
    """Return the messages ``MetricFamily`` of a body in which each comes after its length."""
    families, position = [], 0
    while position < len(body):
        length, position = _DecodeVarint32(body, position)
        assert position + length <= len(body)
        family = MetricFamily.FromString(body[position : position + length])
        size = family.ByteSize()
        family.DiscardUnknownFields()
        assert family.ByteSize() == size
        families.append(family)
        position += length
    return families


def samples_of(body: bytes) -> list[tuple[str, dict[str, str], float]]:
    """Return the samples that the text format has for the same metrics, without times of creation."""
    samples = []
    for family in parse(body):
        kind = TYPES[family.type]
        prefix = "g" if kind == "GAUGE_HISTOGRAM" else ""
        for metric in family.metric:
            labels = {pair.name: pair.value for pair in metric.label}
            number = getattr(metric, kind.removeprefix("GAUGE_").lower())
            if kind.endswith("HISTOGRAM"):
                count = number.sample_count_float or float(number.sample_count)
                counts = {
                    each.upper_bound: each.cumulative_count_float or each.cumulative_count for each in number.bucket
                }
                for bound, each in ({inf: count} | counts).items():
                    samples.append((f"{family.name}_bucket", labels | {"le": floatToGoString(bound)}, float(each)))
                samples.append((f"{family.name}_{prefix}count", labels, count))
                samples.append((f"{family.name}_{prefix}sum", labels, number.sample_sum))
            elif kind == "SUMMARY":
                quantiles = [({"quantile": floatToGoString(each.quantile)}, each.value) for each in number.quantile]
                samples += [(family.name, labels | quantile, value) for quantile, value in quantiles]
                samples.append((f"{family.name}_count", labels, float(number.sample_count)))
                samples.append((f"{family.name}_sum", labels, number.sample_sum))
            else:
                samples.append((family.name, labels, number.value))
    return samples


def native_buckets_of(histogram) -> dict[int, int]:
    """Return the counts of the buckets above zero by their indexes, as the specification of native histograms reads them."""
    deltas = iter(histogram.positive_delta)
    buckets, index, count = {}, 0, 0
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            assert index not in buckets
            count += next(deltas)
            buckets[index] = count
            index += 1
    assert list(deltas) == []
    return {index: count for index, count in buckets.items() if count}
