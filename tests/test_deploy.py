"""The deployment files, read by the tools that they are for."""

import re
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
yaml = pytest.importorskip("yaml", reason="comes with the extra: pip install 'tellframe[ray]'")


def test_the_kubernetes_job_is_valid():
    validate = pytest.importorskip("kubernetes_validate", reason="a tool of the test environment")
    job = yaml.safe_load((DEPLOY / "kubernetes-job.yaml").read_text())
    validate.validate(job, "1.33", strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate({**job, "spec": {**job["spec"], "completion": 3}}, "1.33", strict=True)
    script = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    assert f'"$JOB_COMPLETION_INDEX/{job["spec"]["completions"]}"' in script


def test_the_ray_cluster_file_is_valid():
    ray_tools = pytest.importorskip(
        "ray.autoscaler._private.util", reason="needs the extra: pip install 'tellframe[ray]'"
    )
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    ray_tools.validate_config(ray_tools.prepare_config(config))
    with pytest.raises(Exception, match="max_worker"):
        ray_tools.validate_config(ray_tools.prepare_config({**config, "max_worker": 3}))


@pytest.mark.parametrize("name", ["kubernetes-job.yaml", "ray-cluster.yaml"])
def test_their_commands_exist(name):
    from tellframe.cli import build_parser

    text = (DEPLOY / name).read_text().replace("\\\n", " ").replace("$JOB_COMPLETION_INDEX", "0")
    commands = re.findall(r"tellframe (build s3://.*)", text.replace('"', " "))
    assert commands
    for command in commands:
        assert build_parser().parse_args(command.split()).output == "s3://my-bucket/faces"
