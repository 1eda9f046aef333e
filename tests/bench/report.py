import json
def files(content): return {}
def summary(content): return ""
def line(result): return json.dumps(result)[:1500] if "error" not in result else result["error"]
