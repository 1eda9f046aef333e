// multus-standin stands in for Multus in this project's own test cluster, and nowhere else.
//
// It is a CNI plugin that does one thing of what Multus does: it reads the Pod's annotation
// v1.multus-cni.io/default-network, delegates to the plugins of the NetworkAttachmentDefinition named there, or else
// to the cluster's primary network, and writes k8s.v1.cni.cncf.io/network-status on the Pod. No further networks, no
// thick daemon, no namespace isolation, no JSON form of the annotation. A test on the real Multus puts that in its
// place: MULTUS=/path/to/multus.
//
// Its configuration has the fields that Multus' has: kubeconfig, confDir, cniDir, binDir, clusterNetwork. As in Multus,
// a NetworkAttachmentDefinition with an empty spec.config means the file in confDir whose network has its name: so one
// definition can differ from node to node.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"sigs.k8s.io/yaml"
)

const (
	defaultNetworkAnnotation = "v1.multus-cni.io/default-network"
	networkStatusAnnotation  = "k8s.v1.cni.cncf.io/network-status"
	// multusNamespace is where a name without a namespace is looked up: Multus' own namespace.
	multusNamespace = "kube-system"
	// defaultConfDir is Multus' own (pkg/types/conf.go), which its DaemonSets leave as it is. It is not the runtime's.
	defaultConfDir = "/etc/cni/multus/net.d"
)

// attachmentName is what Multus takes as either part of NAMESPACE/NAME (pkg/k8sclient, parsePodNetworkObjectName): a
// definition whose name has a dot cannot be named so.
var attachmentName = regexp.MustCompile("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")

type netConf struct {
	types.NetConf
	Kubeconfig     string `json:"kubeconfig"`
	ConfDir        string `json:"confDir"`
	CNIDir         string `json:"cniDir"`
	BinDir         string `json:"binDir"`
	ClusterNetwork string `json:"clusterNetwork"`
}

func loadConf(data []byte) (*netConf, error) {
	conf := &netConf{ConfDir: defaultConfDir, CNIDir: "/var/lib/cni/multus", BinDir: "/opt/cni/bin"}
	if err := json.Unmarshal(data, conf); err != nil {
		return nil, fmt.Errorf("multus-standin: its configuration is no JSON: %w", err)
	}
	return conf, nil
}

func (c *netConf) cni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{c.BinDir}, c.CNIDir, nil)
}

// podArgs is what the runtime tells of the Pod in CNI_ARGS.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE          types.UnmarshallableString
	K8S_POD_NAME               types.UnmarshallableString
	K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString
	K8S_POD_UID                types.UnmarshallableString
}

func runtimeConf(args *skel.CmdArgs) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: args.ContainerID, NetNS: args.Netns, IfName: args.IfName}
	for _, pair := range strings.Split(args.Args, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			rt.Args = append(rt.Args, [2]string{key, value})
		}
	}
	return rt
}

func add(args *skel.CmdArgs) error {
	conf, err := loadConf(args.StdinData)
	if err != nil {
		return err
	}
	pod := podArgs{}
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return fmt.Errorf("multus-standin: CNI_ARGS: %w", err)
	}
	api, err := connect(conf.Kubeconfig)
	if err != nil {
		return err
	}
	podPath := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", pod.K8S_POD_NAMESPACE, pod.K8S_POD_NAME)
	var object struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := api.call(http.MethodGet, podPath, nil, &object); err != nil {
		return fmt.Errorf("multus-standin: reading the Pod: %w", err)
	}
	list, name, err := network(conf, api, object.Metadata.Annotations)
	if err != nil {
		return err
	}
	result, err := conf.cni().AddNetworkList(context.Background(), list, runtimeConf(args))
	if err != nil {
		return fmt.Errorf("multus-standin: network %s: %w", name, err)
	}
	if err := writeStatus(api, podPath, name, args.IfName, result); err != nil {
		// The runtime calls DEL after a failed ADD, which takes the delegate's work away again.
		return err
	}
	return types.PrintResult(result, conf.CNIVersion)
}

// network gives the configuration that the Pod is to have, and the name it goes by in network-status.
func network(conf *netConf, api *client, annotations map[string]string) (*libcni.NetworkConfigList, string, error) {
	reference, wanted := annotations[defaultNetworkAnnotation]
	if !wanted {
		list, err := libcni.ConfListFromFile(conf.ClusterNetwork)
		if err != nil {
			return nil, "", fmt.Errorf("multus-standin: the primary network: %w", err)
		}
		return list, list.Name, nil
	}
	if reference == "" || strings.ContainsAny(reference, "@[{, ") {
		return nil, "", fmt.Errorf("multus-standin: %s: %q: this stand-in reads NAME and NAMESPACE/NAME only",
			defaultNetworkAnnotation, reference)
	}
	namespace, name, qualified := strings.Cut(reference, "/")
	if !qualified {
		namespace, name = multusNamespace, reference
	}
	for _, part := range []string{namespace, name} {
		if !attachmentName.MatchString(part) {
			return nil, "", fmt.Errorf("multus-standin: %s: %q: %q is no name that Multus reads",
				defaultNetworkAnnotation, reference, part)
		}
	}
	var definition struct {
		Spec struct {
			Config string `json:"config"`
		} `json:"spec"`
	}
	path := fmt.Sprintf("/apis/k8s.cni.cncf.io/v1/namespaces/%s/network-attachment-definitions/%s", namespace, name)
	if err := api.call(http.MethodGet, path, nil, &definition); err != nil {
		return nil, "", fmt.Errorf("multus-standin: %s: %s: %w", defaultNetworkAnnotation, reference, err)
	}
	list, err := delegateConf(conf, name, definition.Spec.Config)
	if err != nil {
		return nil, "", fmt.Errorf("multus-standin: NetworkAttachmentDefinition %s/%s: %w", namespace, name, err)
	}
	return list, namespace + "/" + name, nil
}

func delegateConf(conf *netConf, name, config string) (*libcni.NetworkConfigList, error) {
	if strings.TrimSpace(config) == "" {
		return confFromDir(conf.ConfDir, name)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(config), &fields); err != nil {
		return nil, fmt.Errorf("spec.config is no JSON: %w", err)
	}
	if _, named := fields["name"]; !named {
		fields["name"] = name
	}
	if _, several := fields["plugins"]; !several {
		fields = map[string]any{"cniVersion": fields["cniVersion"], "name": fields["name"], "plugins": []any{fields}}
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromBytes(data)
}

func confFromDir(dir, name string) (*libcni.NetworkConfigList, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if list, err := libcni.ConfListFromFile(file); err == nil && list.Name == name {
			return list, nil
		}
	}
	return nil, fmt.Errorf("spec.config is empty and no *.conflist in %s has the name %q", dir, name)
}

func writeStatus(api *client, podPath, name, ifName string, result types.Result) error {
	current, err := types100.NewResultFromResult(result)
	if err != nil {
		return fmt.Errorf("multus-standin: the delegate's result: %w", err)
	}
	status := map[string]any{"name": name, "interface": ifName, "default": true, "dns": map[string]any{}}
	ips, gateways := []string{}, []string{}
	for _, ip := range current.IPs {
		ips = append(ips, ip.Address.IP.String())
		if ip.Gateway != nil {
			gateways = append(gateways, ip.Gateway.String())
		}
	}
	status["ips"] = ips
	if len(gateways) > 0 {
		status["gateway"] = gateways
	}
	for _, link := range current.Interfaces {
		if link.Name == ifName && link.Sandbox != "" {
			status["mac"] = link.Mac
		}
	}
	text, err := json.MarshalIndent([]any{status}, "", "    ")
	if err != nil {
		return err
	}
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]string{networkStatusAnnotation: string(text)}}}
	// As Multus does: by the status subresource, which an admission webhook on `pods` does not see.
	if err := api.call(http.MethodPatch, podPath+"/status", patch, nil); err != nil {
		return fmt.Errorf("multus-standin: writing %s: %w", networkStatusAnnotation, err)
	}
	return nil
}

// attachments are what ADD left in the cache: neither the Pod nor the definition need exist any more.
func attachments(args *skel.CmdArgs) (*netConf, []*libcni.NetworkAttachment, error) {
	conf, err := loadConf(args.StdinData)
	if err != nil {
		return nil, nil, err
	}
	cached, err := conf.cni().GetCachedAttachments(args.ContainerID)
	if errors.Is(err, os.ErrNotExist) {
		return conf, nil, nil
	}
	return conf, cached, err
}

func del(args *skel.CmdArgs) error {
	conf, cached, err := attachments(args)
	if err != nil {
		return err
	}
	for _, attachment := range cached {
		list, err := libcni.ConfListFromBytes(attachment.Config)
		if err != nil {
			return fmt.Errorf("multus-standin: the cached configuration of %s: %w", attachment.Network, err)
		}
		if err := conf.cni().DelNetworkList(context.Background(), list, runtimeConf(args)); err != nil {
			return fmt.Errorf("multus-standin: network %s: %w", attachment.Network, err)
		}
	}
	return nil
}

func check(args *skel.CmdArgs) error {
	conf, cached, err := attachments(args)
	if err != nil {
		return err
	}
	for _, attachment := range cached {
		list, err := libcni.ConfListFromBytes(attachment.Config)
		if err != nil {
			return err
		}
		if err := conf.cni().CheckNetworkList(context.Background(), list, runtimeConf(args)); err != nil {
			return err
		}
	}
	return nil
}

// client talks to the API server with the certificate of a kubeconfig that has everything inline.
type client struct {
	server string
	http   *http.Client
}

func connect(kubeconfig string) (*client, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("multus-standin: kubeconfig: %w", err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("multus-standin: %s: %w", kubeconfig, err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, fmt.Errorf("multus-standin: %s: it needs exactly one cluster and one user", kubeconfig)
	}
	pair, err := tls.X509KeyPair(config.Users[0].User.Certificate, config.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("multus-standin: %s: %w", kubeconfig, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	return &client{config.Clusters[0].Cluster.Server, &http.Client{Transport: transport, Timeout: 20 * time.Second}}, nil
}

func (c *client) call(method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequest(method, c.server+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(data, &status)
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, status.Message)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}

func main() {
	nothing := func(*skel.CmdArgs) error { return nil }
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Check: check, Del: del, GC: nothing, Status: nothing},
		version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "multus-standin: a test stand-in for Multus")
}
