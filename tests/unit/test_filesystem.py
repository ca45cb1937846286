"""Opening a store's URL: what is refused, and that no secret is ever shown."""

import errno

import pyarrow as pa
import pytest
from pyarrow import fs

from qcrd_core.errors import StoreError
from qcrd_core.filesystem import describe, may_pass, open_file_system, without_secrets

SECRET = "wJa/lr+XU?tn"
ON_LOOPBACK = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"s3://AKIA:{SECRET}@bucket/q", r"hold credentials; got s3://\*\*\*@bucket/q\. Set AWS"),
        ("s3://AKIA:x%2Fy@bucket/q?region=x", r"hold credentials; got s3://\*\*\*@bucket/q\."),
        (f"s3://bucket/q?secret_key={SECRET}", r"got s3://bucket/q \(Unexpected query parameter"),
        (f"s3://buck et/q?secret_key={SECRET}", r"got s3://buck et/q \(Cannot parse URI: 's3:"),
        (f"ftpx://host/q?key={SECRET}", "must be a folder or an object-store URL; got ftpx://host"),
        (f"hdfs://127.0.0.1:9/q?x={SECRET}", r"hdfs://127\.0\.0\.1:9/q must be reachable; got"),
        ("s3://?region=us-east-1", "must name a bucket; got s3://"),
    ],
    ids=["password", "escaped", "unknown-option", "not-a-url", "scheme", "absent", "no-bucket"],
)
def test_open_file_system_by_wrong_url_is_refused_without_its_secret(url, message):
    with pytest.raises(StoreError, match=message) as caught:
        open_file_system(url)
    assert SECRET not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_open_file_system_with_options_takes_them_and_bounds_retries():
    system, root = open_file_system(f"s3://bucket/a@b/?{ON_LOOPBACK}&allow_bucket_creation=true")
    assert isinstance(system, fs.S3FileSystem)
    assert root == "bucket/a@b"
    assert system.region == "us-east-1"


def test_open_file_system_of_folder_with_odd_name_is_that_folder(tmp_path):
    folder = tmp_path / "a b?c=%20#d:e@f"
    system, root = open_file_system(str(folder))
    assert (type(system), root) == (fs.LocalFileSystem, str(folder))
    assert without_secrets(str(folder)) == str(folder)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"s3://bucket/q?{ON_LOOPBACK}", "s3://bucket/q"),
        (f"s3://AKIA:{SECRET}@bucket/q?region=x", "s3://***@bucket/q"),
        ("s3://bucket/me:you@home/q", "s3://bucket/me:you@home/q"),
        ("file:///data/q", "file:///data/q"),
    ],
    ids=["options", "credentials", "odd-key", "file"],
)
def test_without_secrets_keeps_the_address_alone(url, shown):
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("AWS Error:\n  Not found."), "AWS Error: Not found"),
        (pa.ArrowInvalid("Path is wrong"), "Path is wrong"),
    ],
    ids=["system", "many-lines", "arrow"],
)
def test_describe_gives_one_line(error, text):
    assert describe(error) == text


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), True),
        (OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 502) during PutObject operation"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation: Forbidden"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (pa.ArrowInvalid("damaged"), False),
    ],
    ids=["network", "busy", "gateway", "stale", "denied", "no-bucket", "full", "damaged"],
)
def test_may_pass_is_of_the_network_not_of_the_user(error, passes):
    assert may_pass(error) is passes
